"""`calibration.json`: what turns the raw scores of a checkpoint's answers into confidences."""

import hashlib
import io
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from paliflow import storage
from paliflow.configs import AnnotateSpec, PromptSpec
from paliflow.configs.base import Spec, SpecError
from paliflow.configs.prompts import task_of
from paliflow.configs.summary import CalibratedGroup
from paliflow.jobs.confidence.fitting import Method, Point, threshold

CALIBRATION = "calibration.json"
_DECODING = (
    *("dtype", "int8_cache", "image_size", "decode", "exif", "max_new_tokens"),
    "query_pre_attn_scalar",
)
"""Fields of a spec on which scores depend."""


class Knots(Spec):
    """A map from raw scores to confidences, see `fitting.Map`."""

    method: Method
    x: tuple[float, ...]
    y: tuple[float, ...]


RankedBy = Literal["location_mass", "score"]


class Group(CalibratedGroup):
    """What is known of the answers to one prompt, or to all of a task."""

    by: RankedBy = "location_mass"
    """Which raw score of boxes the maps take, see `filling.raw_box_score`."""
    whole: Knots
    """The map of answers whose label has none of its own."""
    labels: dict[str, Knots] = Field(default_factory=dict)
    """Those of labels that have enough answers of their own."""
    points: tuple[tuple[float, int, int], ...] = ()
    """Thresholds, by falling confidence: how many answers are at least so confident, and how many
    of these are right; all cross-fitted."""
    design_effect: float = 1.0
    """How many dependent answers tell as much as an independent one."""

    def threshold(self, precision: float, level: float) -> Point | None:
        """The least confidence that surely has a precision; None if none has."""
        found = [Point(*point) for point in self.points]
        return threshold(found, precision, level, self.design_effect)


class Calibration(Spec):
    """`calibration.json`."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["calibration"] = "calibration"
    checkpoint_sha256: str
    """Of the weights whose answers it is of."""
    decoding: dict[str, Any]
    """How they were asked, see `decoding_of`."""
    evaluation: str
    """Which labelled answers it was fitted to."""
    created: datetime
    level: float
    """With which the bounds of precisions hold."""
    groups: tuple[Group, ...]

    def group(self, prompt: str, form: str) -> Group | None:
        """The group that the answers to a prompt belong to; None if none does."""
        task = task_of(prompt)
        alike = [group for group in self.groups if (group.task, group.form) == (task, form)]
        own = (group for group in alike if group.prompt == prompt)
        return next(own, next((group for group in alike if group.prompt is None), None))


def form_of(choices: tuple[str, ...] | None, *, closed: bool) -> str:
    """What an answer may be, as part of a question's identity: `free`, `closed`, or a digest of
    its choices, whose order does not count."""
    if choices is not None:
        return f"choices {hashlib.sha256(repr(sorted(choices)).encode()).hexdigest()[:16]}"
    return "closed" if closed else "free"


def form_of_prompt(prompt: str | PromptSpec) -> str:
    """As `form_of`, of a spec's prompt, whose choices are known."""
    if isinstance(prompt, str):
        return "free"
    if prompt.choices_column:
        return "choices of each row"
    return form_of(prompt.choices or None, closed=prompt.closed)


def decoding_of(spec: AnnotateSpec) -> dict[str, Any]:
    """What a spec says on which scores depend, besides checkpoint and prompts."""
    clip = spec.video.clip if spec.video else None
    return {
        **spec.model_dump(mode="json", include=set(_DECODING)),
        "beams": spec.sampling.beams,
        "temperature": spec.sampling.temperature,
        "clip_frames": clip.frames if clip else None,
    }


def misfit(calibration: Calibration, spec: AnnotateSpec) -> str | None:
    """How a spec decodes otherwise than what was calibrated did; None if it does not."""
    now = decoding_of(spec)
    differ = [
        f"{name} was {calibration.decoding.get(name)!r}, is {value!r}"
        for name, value in now.items()
        if calibration.decoding.get(name) != value
    ]
    return "; ".join(differ) or None


def uncovered(calibration: Calibration, spec: AnnotateSpec) -> list[str]:
    """The spec's prompts that the calibration says nothing of.

    Of those with placeholders the texts are not known yet: they are covered if any prompt of their
    task is. Those whose choices each row gives never are.
    """
    return [
        text
        for text, prompt in zip(spec.texts, spec.prompts, strict=True)
        if calibration.group(text, form_of_prompt(prompt)) is None
    ]


def read_calibration(uri: str) -> Calibration:
    """
    Raises:
        SpecError: it is not there, or no calibration.
    """
    try:
        return Calibration.parse(storage.read_bytes(uri).decode())
    except FileNotFoundError:
        raise SpecError(
            f"calibration={uri!r}: there is no such file; `paliflow calibrate` writes it"
        ) from None
    except ValueError as error:
        raise SpecError(f"{uri} is no calibration, or of a newer Paliflow: {error}") from None


def keep_calibration(registry: str, calibration: str) -> str:
    """Copies a calibration to where a registry keeps them, and returns its URI there.

    Args:
        registry: the folder, absolute.
        calibration: its URI.

    Raises:
        SpecError: it is not there, or no calibration.
    """
    read_calibration(calibration)
    content = storage.read_bytes(calibration)
    uri = f"{registry}/calibrations/{hashlib.sha256(content).hexdigest()}.json"
    storage.commit_if_absent(uri, io.BytesIO(content))
    return uri


def write_calibration(uri: str, calibration: Calibration) -> None:
    """Writes it in place of an earlier one."""
    storage.overwrite(uri, io.BytesIO(calibration.model_dump_json(indent=1).encode()))
