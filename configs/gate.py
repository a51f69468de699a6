"""`Gate`: what a run has to be like, so that it is published; and what it was found to be like."""

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from paliflow.configs.base import Spec
from paliflow.configs.examples import ExampleSource, MetricName
from paliflow.configs.run import RUN_ID

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Drift(Spec):
    """Answers may not look otherwise than those of an earlier run."""

    against: Annotated[str, Field(pattern=f"^{RUN_ID.pattern}$")] | None = None
    """The run_id of a run of the same output; the last good one that was asked one of the prompts,
    if not given."""
    false_alarm: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.01
    """How often a run is held back although it is like the other, for all comparisons together."""


class Canaries(ExampleSource):
    """A few labelled examples that each actor is asked, once it has loaded."""

    metric: MetricName = "exact_match"
    """What scores the answers."""
    at_least: float
    """What the metric has to reach with every actor."""
    max_examples: PositiveInt = 64
    """So many of them, spread evenly over the file."""


class Gate(Spec):
    """What holds a run back: see docs/gates.md."""

    max_errors: Share | None = None
    """The share of rows that are errors."""
    max_cut: Share | None = None
    """The share of answers that `max_new_tokens` cut."""
    max_empty: Share | None = None
    """The share of answers without a text; of `detect` and `segment`, those that found nothing."""
    max_not_accepted: Share | None = None
    """With `accept`, the share of answers and boxes that were not accepted."""
    drift: Drift | None = None
    """How like an earlier run it has to be: of the labels, the lengths and the confidences of
    answers. `{}` takes the defaults."""
    canaries: Canaries | None = None
    """Labelled examples that are asked along."""

    @model_validator(mode="after")
    def _checks_something(self) -> "Gate":
        if not any(value is not None for _, value in self):
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self
