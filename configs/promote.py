"""`PromoteSpec`: when a candidate takes the place of the model in use."""

from typing import Annotated

from pydantic import Field, PositiveInt, StringConstraints, model_validator

from paliflow.configs.base import Spec
from paliflow.configs.run import Stored

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class PromoteSpec(Spec):
    """Compares two evaluations of the same examples and moves an alias, or says why not."""

    registry: Stored
    """The folder of `registry.json`, local or `gs://`."""
    name: Name
    """Of the model, as in `registry://<name>@<alias>`."""
    alias: Annotated[Name, StringConstraints(pattern=r"\D")] = "production"
    """What moves."""
    candidate: Stored | None = None
    """The location of the candidate's evaluation."""
    incumbent: Stored | None = None
    """The location of the evaluation of the checkpoint that the alias points to."""
    metric: str | None = None
    """The figure that decides, e.g. `held_out/exact_match`. Of those that are better lower, such as
    `perplexity`, a fall is the gain."""
    min_gain: float = Field(default=0.0, ge=0.0)
    """The candidate has to be better by at least this, in the figure's own unit, and by more than
    nothing."""
    confidence: float = Field(default=0.95, ge=0.5, lt=1.0)
    """With which it is better, and with which no guard is broken: one-sided, by paired bootstrap
    over the examples."""
    guards: dict[str, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)
    """Figures that may not get worse by more than this, e.g. `{"old_domain/exact_match": 0.02}`."""
    resamples: PositiveInt = 10_000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""
    checkpoint: Stored | None = None
    """Registered without a comparison, if the alias points to nothing yet; where it does, nothing
    happens. Given instead of the evaluations."""

    @model_validator(mode="after")
    def _either_or(self) -> "PromoteSpec":
        compared = (self.candidate, self.incumbent, self.metric)
        if self.checkpoint and any(compared):
            raise ValueError("give checkpoint, or candidate, incumbent and metric, not both")
        if not self.checkpoint and not all(compared):
            raise ValueError("give candidate, incumbent and metric, or a first checkpoint")
        return self
