"""Intersection over union of boxes and masks, and detection precision, recall and F1.

A box is (y_min, x_min, y_max, x_max) in any unit, as long as both sides use the same one.
"""

from collections.abc import Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paliflow.metrics.limits import MAX_OBJECTS

Box = tuple[float, float, float, float]
Detection = tuple[str, Box]  # label and box


class DetectionScores(NamedTuple):
    """Each 0 to 1."""

    precision: float
    recall: float
    f1: float


def box_iou(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """IoU of boxes [..., 4] with boxes [..., 4], broadcast -> float64 [...].

    0 where both boxes are empty; a box whose maximum is below its minimum is empty.
    Raises ValueError if the last axis is not 4.
    """
    a, b = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    for name, array in (("boxes", a), ("others", b)):
        if array.shape[-1:] != (4,):
            raise ValueError(
                f"{name} has shape {array.shape}: the last axis must be a box's 4 coordinates"
            )
    overlap = _area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - overlap
    return np.divide(overlap, union, out=np.zeros_like(union), where=union > 0)


def mask_iou(mask: ArrayLike, other: ArrayLike) -> float:
    """IoU of two masks [H, W], nonzero inside; 1 if both are empty.

    Raises ValueError if they are not of one size.
    """
    a, b = np.asarray(mask, bool), np.asarray(other, bool)
    if a.shape != b.shape:
        raise ValueError(f"masks of shapes {a.shape} and {b.shape}: resize one to the other")
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def mean_iou(
    references: Sequence[ArrayLike] | NDArray[Any],
    predictions: Sequence[ArrayLike | None] | NDArray[Any],
) -> float:
    """Mean IoU of pairs of boxes [4] or of masks [H, W]; a prediction of None scores 0.

    None is for text that did not parse, as RefCOCO is scored.
    Raises ValueError if there are no pairs, or not as many predictions as references.
    """
    _check(references, predictions)
    return float(
        np.mean(
            [
                0.0
                if given is None
                else (mask_iou if np.ndim(wanted) == 2 else box_iou)(wanted, given)
                for wanted, given in zip(references, predictions, strict=True)
            ]
        )
    )


def detection_scores(
    references: Sequence[Sequence[Detection]],
    predictions: Sequence[Sequence[Detection]],
    iou: float = 0.5,
) -> DetectionScores:
    """Precision, recall and F1 over all images; one list of (label, box) per image.

    A prediction is right if it is matched to a reference with its label and at least `iou`
    overlap; each is matched at most once, and as many are matched as can be. Where nothing was
    predicted precision is 0, where nothing was there to find recall is 0, but both are 1 if both
    are empty. Of an image's objects the first `MAX_OBJECTS` can be matched; all are counted.

    Raises ValueError if there are no images, not as many predictions as references, or `iou` is
    not above 0 and at most 1.
    """
    _check(references, predictions)
    if not 0 < iou <= 1:
        raise ValueError(f"iou is {iou}: give a threshold above 0 and at most 1")
    matched = sum(
        count_matches(wanted, given, iou)
        for wanted, given in zip(references, predictions, strict=True)
    )
    wanted, given = sum(map(len, references)), sum(map(len, predictions))
    if not wanted and not given:
        return DetectionScores(1.0, 1.0, 1.0)
    return DetectionScores(
        precision=matched / given if given else 0.0,
        recall=matched / wanted if wanted else 0.0,
        f1=2 * matched / (wanted + given),
    )


def detection_f1(
    references: Sequence[Sequence[Detection]],
    predictions: Sequence[Sequence[Detection]],
    iou: float = 0.5,
) -> float:
    """F1 of `detection_scores`, 0 to 1."""
    return detection_scores(references, predictions, iou).f1


def count_matches(wanted: Sequence[Detection], given: Sequence[Detection], iou: float = 0.5) -> int:
    """How many of an image's detections can be matched at once, as in `detection_scores`.

    A maximum bipartite matching, by shortest augmenting paths.
    """
    wanted, given = wanted[:MAX_OBJECTS], given[:MAX_OBJECTS]
    if not wanted or not given:
        return 0
    overlaps = box_iou([[box] for _, box in wanted], [box for _, box in given])
    names: dict[str, int] = {}
    labels, others = (
        np.array([names.setdefault(label, len(names)) for label, _ in side])
        for side in (wanted, given)
    )
    fits = (overlaps >= iou) & (labels[:, None] == others)
    # Of each prediction and each reference, the other side's; -1 while it has none.
    reference_of, prediction_of = np.full(len(given), -1), np.full(len(wanted), -1)
    unreached = np.ones(len(given), bool)
    for start in range(len(wanted)):
        came_from: dict[int, int] = {}
        queue, end = [start], -1
        for reference in queue:  # which grows
            reached = np.flatnonzero(fits[reference] & unreached)
            unreached[reached] = False
            came_from |= dict.fromkeys(reached.tolist(), reference)
            partners = reference_of[reached]
            if (partners < 0).any():
                end = int(reached[partners < 0][0])
                break
            queue += partners.tolist()
        else:
            continue  # Whatever this search has reached leads to no free prediction, ever.
        unreached[list(came_from)] = True
        while end >= 0:
            reference, reference_of[end] = came_from[end], came_from[end]
            end, prediction_of[reference] = int(prediction_of[reference]), end
    return int(np.count_nonzero(reference_of >= 0))


def _area(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    sides: NDArray[np.float64] = np.maximum(high - low, 0)
    return sides[..., 0] * sides[..., 1]


def _check(references: Sized, predictions: Sized) -> None:
    if len(references) != len(predictions):
        raise ValueError(
            f"{len(references)} references but {len(predictions)} predictions: give one of each "
            "per image, an empty one where there is nothing"
        )
    if not len(references):
        raise ValueError("references is empty: give at least one image to score")
