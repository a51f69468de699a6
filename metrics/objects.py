"""Scores of the boxes and masks of one image: what is right against what was found."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paliflow.metrics.bootstrap import ratio
from paliflow.metrics.boxes import Box, box_iou, count_matches, mask_iou


class Object(NamedTuple):
    """A labelled box in an image, and its mask where there is one."""

    label: str
    box: Box
    mask: Callable[[], NDArray[np.uint8]] | None = None
    """Computes the mask [H, W], which few metrics look at."""


class RankedBoxes(NamedTuple):
    """The boxes of an answer, and how many there were to find."""

    scores: Sequence[float] = ()
    """How sure the model is of each box."""
    right: Sequence[bool] = ()
    """Whether each is matched to an object, each object at most once."""
    wanted: int = 0


DetectionPart = Callable[[int, int, int], tuple[int, int]]
"""From how many objects are matched, wanted and given to a numerator and a denominator."""


def detection_parts(
    answers: Sequence[tuple[Sequence[Sequence[Object]], Sequence[Object]]], part: DetectionPart
) -> list[tuple[float, float]]:
    """The numerator and denominator of each image; the sums' ratio is as `detection_scores` has it.

    Args:
        answers: of each image the right answers, of which the one that scores best counts, and
            what was given.
        part: precision, recall or F1; see `count_matches`.
    """
    found, any_object = [], []
    for references, given in answers:
        boxes = [(each.label, each.box) for each in given]
        of_each = []
        for objects in references:
            wanted = [(each.label, each.box) for each in objects]
            of_each.append(part(count_matches(wanted, boxes), len(wanted), len(given)))
        found.append(max(of_each, key=lambda own: float(ratio(*own))))
        any_object.append(bool(given) or all(references))
    if not any(below for _, below in found):
        # Precision of a set where nothing is given, or recall of one where nothing is wanted.
        return [(0.0, float(some)) for some in any_object]
    return [(float(above), float(below)) for above, below in found]


def overlap_parts(
    references: Sequence[Sequence[Object] | None], given: Sequence[Object]
) -> tuple[float, float]:
    """The sum of IoUs over the objects wanted, and how many are wanted.

    Where one object is wanted, the first given counts, whatever its label, as RefCOCO is scored.
    Where several are, the k-th of a label is compared with the k-th given of that label. Those
    missing score 0, others given do not count. Masks are compared where the wanted one has one,
    else boxes.

    Args:
        references: right answers; the one that scores best counts. None stands for one where
            nothing is to be found, which counts as one object, found if none is given.
        given: what was answered.
    """
    of_each = []
    for wanted in references:
        if wanted is None:
            of_each.append((float(not given), 1.0))
            continue
        total = sum(_iou(one, other) for one, other in _pairs(wanted, given))
        of_each.append((total, float(len(wanted))))
    return max(of_each, key=lambda part: part[0] / max(1.0, part[1]))


def _pairs(wanted: Sequence[Object], given: Sequence[Object]) -> list[tuple[Object, Object]]:
    if len(wanted) == 1:
        return list(zip(wanted, given, strict=False))
    of_label: dict[str, list[Object]] = {}
    for found in reversed(given):
        of_label.setdefault(found.label, []).append(found)
    return [(one, of_label[one.label].pop()) for one in wanted if of_label.get(one.label)]


def _iou(wanted: Object, given: Object) -> float:
    if wanted.mask is None:
        return float(box_iou(wanted.box, given.box))
    return mask_iou(wanted.mask(), given.mask()) if given.mask else 0.0
