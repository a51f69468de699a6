"""`EvaluateSpec`: which held-out examples a checkpoint is scored on."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from paliflow.configs.examples import EvaluationSet, SetName
from paliflow.configs.run import InferenceSpec


class EvaluateSpec(InferenceSpec):
    """One evaluation: a checkpoint answers held-out examples greedily and is scored."""

    kind: Literal["evaluate"] = "evaluate"
    """What the run is."""
    sets: Annotated[dict[SetName, EvaluationSet], Field(min_length=1)]
    """By name; their figures are `<name>/<metric>`."""

    @model_validator(mode="after")
    def _one_answer(self) -> "EvaluateSpec":
        self.require_whole_clips()
        return self
