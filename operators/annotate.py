"""`AnnotateOperator`: one annotation run as one task."""

from collections.abc import Iterable
from typing import Any

from paliflow.configs import AnnotateSpec
from paliflow.configs.summary import accepted_said, cut_said, filtered_said
from paliflow.operators.fields import takes_fields_of
from paliflow.operators.run import RunOperator


class AnnotateOperator(RunOperator):
    """Annotates images: takes the fields of `AnnotateSpec`, and those that `JobOperator` has.

    Returns the `RunSummary`. The asset's events carry `run_id`, `output`, `location`, `rows`,
    `errors`, `accepted`, `not_accepted`, `tokens`, `chip_seconds`, `usd` and `stages`.
    """

    JOB = "annotate"
    SPEC = AnnotateSpec
    ANNOUNCED = (
        *("rows", "errors", "accepted", "not_accepted", "tokens", "chip_seconds", "usd", "stages"),
    )

    @takes_fields_of(AnnotateSpec, optional=RunOperator.MADE_LATER)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def _log_lines(self, summary: dict[str, Any]) -> Iterable[str]:
        rows, errors, cut = summary["rows"], summary["errors"], cut_said(summary.get("cut", 0))
        filtered = filtered_said(summary.get("filtered", 0), summary.get("unscored", 0))
        accepted = accepted_said(summary.get("accepted", 0), summary.get("not_accepted", 0))
        said = f"{cut}{filtered}{accepted}"
        yield f"{rows} rows, {errors} of them errors{said}, in {summary['location']}"
