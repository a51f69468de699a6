"""`ExtractFramesOperator`: one extraction of frames as one task."""

from collections.abc import Iterable
from typing import Any

from paliflow.configs import ExtractSpec
from paliflow.operators.fields import takes_fields_of
from paliflow.operators.run import RunOperator


class ExtractFramesOperator(RunOperator):
    """Writes frames of videos as images: takes the fields of `ExtractSpec`, and those that
    `JobOperator` has.

    Returns the `ExtractSummary`; `<location>/part-*.parquet` is an `AnnotateOperator`'s `input`.
    The asset's events carry `run_id`, `output`, `location`, `frames` and `errors`.
    """

    JOB = "extract"
    SPEC = ExtractSpec
    ANNOUNCED = ("frames", "errors")

    @takes_fields_of(ExtractSpec, optional=RunOperator.MADE_LATER)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def _log_lines(self, summary: dict[str, Any]) -> Iterable[str]:
        yield "{frames} frames, {errors} errors, in {location}".format(**summary)
