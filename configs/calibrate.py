"""`CalibrateSpec`: which labelled answers confidences are fitted to."""

from pydantic import Field, model_validator

from paliflow.configs.base import Spec
from paliflow.configs.promote import Name
from paliflow.configs.run import Stored


class CalibrateSpec(Spec):
    """Fits confidences of a checkpoint to an evaluation's labelled answers: see
    docs/confidence.md."""

    evaluation: Stored
    """The location of a finished evaluation."""
    sets: tuple[str, ...] = ()
    """Which of its sets are fitted to; all if none are given."""
    metric: str | None = None
    """The figure that says which answers are right, those with at least a half of it. If not given,
    a set's first of one answer alone, such as `exact_match` or `vqa_accuracy`. Boxes are right
    where they match one of their label with an IoU of at least 0.5."""
    output: Stored | None = None
    """The folder of `calibration.json` and `calibration.html`; the evaluation's if not given."""
    registry: Stored | None = None
    """The folder of `registry.json`: the version of the evaluation's checkpoint gets the
    calibration, and is made if there is none. With `name`."""
    name: Name | None = None
    """Of the model in the registry."""
    level: float = Field(default=0.95, ge=0.5, lt=1.0)
    """With which the precisions of thresholds hold, and of the intervals."""
    seed: int = 0
    """Of folds and bootstraps."""

    @model_validator(mode="after")
    def _names_the_model(self) -> "CalibrateSpec":
        if (self.registry is None) != (self.name is None):
            raise ValueError("registry and name go together: give both, or neither")
        return self
