"""Boxes and masks as PaliGemma writes them: <loc> and <seg> text to detections and back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

BINS = 1023
_LOC = r"<loc(\d{4})>"
_OBJECT = re.compile(
    rf"{_LOC}{_LOC}{_LOC}{_LOC}"  # y_min x_min y_max x_max
    r"(?P<codes>(?:<seg\d{3}>){16})?"
    r"(?P<label>[^<>;]*)"
)


@dataclass(frozen=True)
class Detection:
    """One object; the box in pixels of the original image."""

    label: str
    y_min: float
    x_min: float
    y_max: float
    x_max: float
    codes: tuple[int, ...] | None = None
    """The 16 mask codes in [0, 128), row by row, if there is a mask."""


def format_detections(detections: Sequence[Detection], width: int, height: int) -> str:
    """Writes detections as the model is taught to: boxes as y x y x, joined by ` ; `.

    A coordinate v of extent e becomes `clip(round(v / e * 1023), 0, 1023)`, as in big_vision.
    """
    return " ; ".join(_format_one(d, width, height) for d in detections)


def _format_one(detection: Detection, width: int, height: int) -> str:
    corners = (
        (detection.y_min, height),
        (detection.x_min, width),
        (detection.y_max, height),
        (detection.x_max, width),
    )
    bins = (min(max(round(value / extent * BINS), 0), BINS) for value, extent in corners)
    text = "".join(f"<loc{n:04d}>" for n in bins)
    text += "".join(f"<seg{code:03d}>" for code in detection.codes or ())
    return f"{text} {detection.label}" if detection.label else text
