"""`FineTuneOperator`: one fine-tuning run as one task."""

from collections.abc import Iterable
from typing import Any

from paliflow.configs import FineTuneSpec
from paliflow.operators.fields import takes_fields_of
from paliflow.operators.outcome import shown
from paliflow.operators.run import RunOperator


class FineTuneOperator(RunOperator):
    """Trains a model: takes the fields of `FineTuneSpec`, and those that `JobOperator` has.

    Returns the `FineTuneSummary`, whose `model` an `EvaluateOperator` takes as its `checkpoint`.
    The asset's events carry `run_id`, `output`, `location`, `model`, `loss`, `figures`,
    `chip_seconds`, `usd` and `stages`.
    """

    JOB = "finetune"
    SPEC = FineTuneSpec
    ANNOUNCED = ("model", "loss", "figures", "chip_seconds", "usd", "stages")

    @takes_fields_of(FineTuneSpec, optional=RunOperator.MADE_LATER)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def _log_lines(self, summary: dict[str, Any]) -> Iterable[str]:
        yield "{steps} steps, {errors} of {examples} examples were errors".format(**summary)
        yield f"loss {shown(summary['loss'])}"
        for name, value in summary["figures"].items():
            yield f"{name} {shown(value)}"
        yield "The model is {model}, of step {best_step}".format(**summary)
