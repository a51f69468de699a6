"""Boxes and masks as PaliGemma writes them: <loc> and <seg> text to detections and back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import exp
from typing import TYPE_CHECKING

import numpy as np

from paliflow.model.masks import Rle, paste_mask

if TYPE_CHECKING:  # answers are parsed where there is no JAX
    from paliflow.model.mask_decoder import MaskDecoder

BINS = 1023
"""A coordinate v of extent e is bin `round(v / e * 1023)`, and bin n is `n / 1023 * e`."""
_CODES_PER_MASK = 16
_CODEBOOK_SIZE = 128
_BOX_CHARACTERS = len("<loc0000>") * 4
_OBJECT = re.compile(r"((?:<loc\d{4}>){4})((?:<seg\d{3}>)*)([^<>;]*)")


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
    mask: Rle | None = field(default=None, compare=False)
    """The mask in the image, if there are codes and a decoder."""
    score: float | None = field(default=None, compare=False)
    """In [0, 1]; see `score_detections`."""
    label_probability: float | None = field(default=None, compare=False)
    """In [0, 1]: of the label, given the box."""
    location_mass: float | None = field(default=None, compare=False)
    """In [0, 1]: of boxes whose four locations are each within a few bins of this one's."""
    span: tuple[int, int] = field(default=(0, 0), compare=False)
    """Where it stands in the text it was parsed from, in characters."""
    label_span: tuple[int, int] = field(default=(0, 0), compare=False)
    """Where its label does."""


def parse_detections(
    text: str, width: int, height: int, mask_decoder: "MaskDecoder | None" = None
) -> list[Detection]:
    """Finds the objects in a model's answer; never raises, whatever the model wrote.

    An object is four <loc> tokens (y_min x_min y_max x_max), then 16 <seg> tokens for a mask, then
    a label. One whose box has no area or whose bins do not exist is left out; a mask of any other
    number of codes is left out and its box kept.

    Args:
        text: as generated.
        width, height: of the original image, in pixels.
        mask_decoder: turns codes into masks; without it `mask` stays None.
    """
    found = []
    for match in _OBJECT.finditer(text):
        y_min, x_min, y_max, x_max = bins = [int(n) for n in re.findall(r"\d+", match[1])]
        if max(bins) > BINS or y_max <= y_min or x_max <= x_min:
            continue
        codes = tuple(int(n) for n in re.findall(r"\d+", match[2]))
        valid = len(codes) == _CODES_PER_MASK and max(codes) < _CODEBOOK_SIZE
        detection = Detection(
            match[3].strip(),
            y_min / BINS * height,
            x_min / BINS * width,
            y_max / BINS * height,
            x_max / BINS * width,
            codes if valid else None,
            span=match.span(),
            label_span=_stripped(match, 3),
        )
        found.append(detection)
    return found if mask_decoder is None else _with_masks(found, width, height, mask_decoder)


def _stripped(match: re.Match[str], group: int) -> tuple[int, int]:
    """Where a group's text stands, without white space around it."""
    begin = match.start(group) + len(match[group]) - len(match[group].lstrip())
    return begin, begin + len(match[group].strip())


def _with_masks(
    detections: list[Detection], width: int, height: int, decoder: "MaskDecoder"
) -> list[Detection]:
    result = []
    for d in detections:
        if d.codes is not None:
            # One at a time: a single compiled shape, and the decoder is tiny.
            mask = np.asarray(decoder(np.array([d.codes]))[0])
            box = (d.y_min, d.x_min, d.y_max, d.x_max)
            d = replace(d, mask=paste_mask(mask, box, width, height))
        result.append(d)
    return result


def score_detections(
    detections: Sequence[Detection],
    offsets: Sequence[int],
    logprobs: Sequence[float],
    nearby: Sequence[float] | None = None,
) -> list[Detection]:
    """Scores each detection by the geometric mean of its tokens' probabilities.

    Its `label_probability` is the product of its label's, its `location_mass` that of what is
    nearby its four locations.

    Args:
        detections: from `parse_detections` of the text.
        offsets: the character at which each token starts, and the text's length at the end.
        logprobs: of each token.
        nearby: of each token, as `Generation.nearby`.
    """

    def within(values: Sequence[float], span: tuple[int, int]) -> list[float]:
        return [
            value
            for start, end, value in zip(offsets[:-1], offsets[1:], values, strict=True)
            if start < span[1] and end > span[0]
        ]

    scored = []
    for d in detections:
        own, label = within(logprobs, d.span), within(logprobs, d.label_span)
        box = within(nearby or (), (d.span[0], d.span[0] + _BOX_CHARACTERS)) if nearby else []
        scored.append(
            replace(
                d,
                score=exp(sum(own) / len(own)) if own else None,
                label_probability=exp(sum(label)) if label else None,
                location_mass=min(1.0, exp(sum(box))) if box else None,
            )
        )
    return scored


def format_detections(detections: Sequence[Detection], width: int, height: int) -> str:
    """Writes detections as the model is taught to: boxes as y x y x, joined by ` ; `.

    Bins are `clip(round(v / extent * 1023), 0, 1023)`, as in big_vision. The inverse of
    `parse_detections` up to the rounding of boxes to bins.
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
