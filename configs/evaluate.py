"""`EvaluateSpec`: which held-out examples a checkpoint is scored on."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from paliflow.configs.benchmark import benchmark, evaluation_defaults
from paliflow.configs.examples import EvaluationSet, SetName
from paliflow.configs.run import InferenceSpec


class EvaluateSpec(InferenceSpec):
    """One evaluation: a checkpoint answers held-out examples and is scored.

    What a benchmark among the sets is asked with (`max_new_tokens`, `beams`, `exif`) it says
    itself, where the spec does not.
    """

    kind: Literal["evaluate"] = "evaluate"
    """What the run is."""
    sets: Annotated[dict[SetName, EvaluationSet], Field(min_length=1)]
    """By name; their figures are `<name>/<metric>`, or of a benchmark those that it names."""
    beams: PositiveInt = 1
    """As `sampling.beams` of an annotation; answers are greedy if not given."""
    min_coverage: float = Field(default=0.9, ge=0.0, le=1.0)
    """A benchmark has no figures where a smaller share of its rows could be asked, e.g. because
    images are missing; the others count as answered with nothing."""

    @model_validator(mode="after")
    def _as_its_benchmarks_want(self) -> "EvaluateSpec":
        named = {name: own.benchmark for name, own in self.sets.items() if own.benchmark}
        known = {name: benchmark(own) for name, own in named.items()}
        self.__dict__.update(evaluation_defaults(known, self.model_fields_set))
        return self

    @model_validator(mode="after")
    def _one_answer(self) -> "EvaluateSpec":
        self.require_whole_clips()
        return self
