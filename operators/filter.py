"""`FilterOperator`: one run of filters as one task."""

from collections.abc import Iterable
from typing import Any

from paliflow.configs import FilterSpec
from paliflow.operators.fields import takes_fields_of
from paliflow.operators.run import RunOperator


class FilterOperator(RunOperator):
    """Filters images and the texts beside them: takes the fields of `FilterSpec`, and those that
    `JobOperator` has.

    Returns the `FilterSummary`; its `manifest` is an `AnnotateOperator`'s `input`. The asset's
    events carry `run_id`, `output`, `location`, `manifest`, `kept`, `removed`, `unscored` and
    `errors`.
    """

    JOB = "filter"
    SPEC = FilterSpec
    ANNOUNCED = ("manifest", "kept", "removed", "unscored", "errors")

    @takes_fields_of(FilterSpec, optional=RunOperator.MADE_LATER)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def _log_lines(self, summary: dict[str, Any]) -> Iterable[str]:
        yield (
            "{kept} kept, {removed} removed, {unscored} not scored, {errors} errors: {manifest}"
        ).format(**summary)
        for flagged, count in summary.get("flagged", {}).items():
            yield f"{flagged}: {count}"
