"""`ReleaseOperator`: a quarantined run is let through, as one task."""

from collections.abc import Iterable
from typing import Any

from paliflow.configs import ReleaseSpec
from paliflow.operators.annotate import AnnotateOperator
from paliflow.operators.fields import takes_fields_of
from paliflow.operators.run import OutputOperator


class ReleaseOperator(OutputOperator):
    """Lets an annotation run through that its gate has quarantined: takes the fields of
    `ReleaseSpec`, and those that `JobOperator` has.

    Returns the `RunSummary`, and announces the run as `AnnotateOperator` would have. After an
    `ApprovalOperator`, it does what somebody has approved.
    """

    JOB = "release"
    SPEC = ReleaseSpec
    ANNOUNCED = AnnotateOperator.ANNOUNCED

    @takes_fields_of(ReleaseSpec)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def _log_lines(self, summary: dict[str, Any]) -> Iterable[str]:
        yield f"released: {summary['location']}"
