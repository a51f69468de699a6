"""`EvaluateOperator`: one evaluation as one task."""

from typing import Any

from paliflow.configs import EvaluateSpec
from paliflow.operators.fields import takes_fields_of
from paliflow.operators.run import RunOperator


class EvaluateOperator(RunOperator):
    """Scores a checkpoint: takes the fields of `EvaluateSpec`, and those that `JobOperator` has.

    Returns the `EvaluateSummary`, whose `location` a `PromoteOperator` takes as its `candidate` or
    `incumbent`. The asset's events carry `run_id`, `output`, `location`, `checkpoint`, `figures`,
    `chip_seconds`, `usd` and `stages`.
    """

    JOB = "evaluate"
    SPEC = EvaluateSpec
    ANNOUNCED = ("checkpoint", "figures", "chip_seconds", "usd", "stages")

    @takes_fields_of(EvaluateSpec, optional=RunOperator.MADE_LATER)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
