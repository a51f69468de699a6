"""`EvaluateSpec`: which held-out examples a checkpoint is scored on."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from paliflow.configs.benchmark import benchmark, evaluation_defaults
from paliflow.configs.examples import EvaluationSet, SetName
from paliflow.configs.prompts import AnyPrompt, PromptSpec, require_distinct, require_no_closed
from paliflow.configs.run import InferenceSpec
from paliflow.configs.safety import Scorer


class EvaluateSpec(InferenceSpec):
    """One evaluation: a checkpoint answers held-out examples and is scored.

    What a benchmark among the sets is asked with (`max_new_tokens`, `beams`, `exif`) it says
    itself, where the spec does not.
    """

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = InferenceSpec.EXECUTION_FIELDS | {
        "min_group",
        "unscored",
    }

    kind: Literal["evaluate"] = "evaluate"
    """What the run is."""
    sets: dict[SetName, EvaluationSet] = Field(default_factory=dict)
    """By name; their figures are `<name>/<metric>`, or of a benchmark those that it names."""
    benchmarks: tuple[str, ...] = ()
    """Public benchmarks that `paliflow benchmarks list` names: each is a set of its name, whose
    files are in `data`. What they are asked with has to be the same; else each is a run."""
    data: str | None = None
    """The folder of their official files."""
    prompts: tuple[AnyPrompt, ...] = ()
    """Prompts whose answers are fixed, as an annotation's: examples whose prefix is the `ask` of
    one have its choices, or are closed. Other examples are asked in free words."""
    beams: PositiveInt = 1
    """As `sampling.beams` of an annotation; answers are greedy if not given."""
    min_coverage: float = Field(default=0.9, ge=0.0, le=1.0)
    """A benchmark has no figures where a smaller share of its rows could be asked, e.g. because
    images are missing; the others count as answered with nothing."""
    scorer: Scorer | None = None
    """What scores the toxicity of all answers, by its name or with its settings: `toxicity`. Each
    set then has a table of it; nothing is removed, whatever its `action`. A benchmark of toxicity,
    such as `fairface`, has `toxicity` if none is given."""
    unscored: Literal["refuse", "allow"] = "refuse"
    """What becomes of an evaluation with answers that the scorer could not score: it is refused,
    the answers being kept, or its table counts them, and intervals allow for either."""
    min_group: NonNegativeInt = 1000
    """A group with fewer scored answers is shown, and left out of the table's maxima and medians,
    which would be those of chance; 0 leaves none out."""

    @field_validator("prompts")
    @classmethod
    def _of_all_rows(cls, value: tuple[AnyPrompt, ...]) -> tuple[AnyPrompt, ...]:
        require_distinct(value)
        if any(isinstance(prompt, PromptSpec) and prompt.choices_column for prompt in value):
            raise ValueError("examples have no choices_column; give choices or choices_file")
        return value

    @model_validator(mode="after")
    def _searches_in_free_words(self) -> "EvaluateSpec":
        require_no_closed(self.prompts, self.beams)
        return self

    @model_validator(mode="after")
    def _asks_something(self) -> "EvaluateSpec":
        if self.benchmarks and not self.data:
            raise ValueError("benchmarks: give data, the folder of their files")
        named = {
            name: EvaluationSet(benchmark=name, path=self.data or "") for name in self.benchmarks
        }
        self.__dict__["sets"] = {**named, **self.sets}
        if not self.sets:
            raise ValueError("sets={}: give at least one, or benchmarks and data")
        return self

    @model_validator(mode="after")
    def _as_its_benchmarks_want(self) -> "EvaluateSpec":
        named = {name: own.benchmark for name, own in self.sets.items() if own.benchmark}
        known = {name: benchmark(own) for name, own in named.items()}
        self.__dict__.update(evaluation_defaults(known, self.model_fields_set))
        return self

    @model_validator(mode="after")
    def _has_a_scorer(self) -> "EvaluateSpec":
        if self.scorer:
            scoring = self.scorer.model_copy(update={"action": "label"})
            self.__dict__["scorer"] = scoring
        for name, own in self.sets.items():
            if self.scorer is None and (own.groups or any(map(_is_scored, own.metrics or ()))):
                raise ValueError(
                    f"sets.{name}: groups, and metrics such as `without_toxicity`, need a scorer; "
                    "give scorer: toxicity"
                )
        return self

    @model_validator(mode="after")
    def _one_answer(self) -> "EvaluateSpec":
        self.require_whole_clips()
        return self


def _is_scored(metric: str) -> bool:
    return metric.startswith("without_")
