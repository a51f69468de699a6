"""`PromoteOperator`: whether a candidate takes the place of the model in use, as one task."""

from typing import Any

from paliflow.configs import PromoteSpec
from paliflow.operators.fields import takes_fields_of
from paliflow.operators.job import JobOperator, asset_uri


class PromoteOperator(JobOperator):
    """Moves an alias of the registry, or says why not: takes the fields of `PromoteSpec`, and those
    that `JobOperator` has.

    Returns the `PromoteSummary`; a refusal is no failure, its `promoted` is false. Where the alias
    has moved, and only there, the asset `<registry>/<name>/<alias>` has an event, which carries
    `name`, `alias`, `version`, `checkpoint`, `checkpoint_sha256` and `reason`. It goes through the
    `AssetAlias` `<dag_id>.<task_id>`, because of an `Asset` outlet every success is an event.
    """

    JOB = "promote"
    SPEC = PromoteSpec

    @takes_fields_of(PromoteSpec)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def _asset_outlet(self) -> None:
        return None

    def _asset_event(self, summary: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        if not summary["promoted"]:
            return None
        carried = ("name", "alias", "version", "checkpoint", "checkpoint_sha256", "reason")
        # As the DAG names the registry, which is what other DAGs are scheduled on.
        uri = "/".join((asset_uri(self.spec["registry"]), summary["name"], summary["alias"]))
        return uri, {key: summary[key] for key in carried}
