"""`CalibrateOperator`: confidences fitted to an evaluation's answers, as one task."""

from collections.abc import Iterable
from typing import Any

from paliflow.configs import CalibrateSpec
from paliflow.operators.fields import takes_fields_of
from paliflow.operators.job import JobOperator, asset_uri


class CalibrateOperator(JobOperator):
    """Fits the confidences of a checkpoint to an evaluation's labelled answers: takes the fields of
    `CalibrateSpec`, and those that `JobOperator` has.

    Returns the `CalibrateSummary`, whose `calibration` an `AnnotateOperator` takes; one that asks
    the registry's version needs none. The event is of the asset of `calibration.json`, through the
    `AssetAlias` `<dag_id>.<task_id>`, and carries `evaluation`, `checkpoint_sha256` and `version`.
    """

    JOB = "calibrate"
    SPEC = CalibrateSpec

    @takes_fields_of(CalibrateSpec)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def _asset_outlet(self) -> None:
        return None

    def _asset_event(self, summary: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        carried = ("evaluation", "checkpoint_sha256", "version")
        return asset_uri(summary["calibration"]), {key: summary.get(key) for key in carried}

    def _log_lines(self, summary: dict[str, Any]) -> Iterable[str]:
        yield f"calibrated: {summary['calibration']}"
