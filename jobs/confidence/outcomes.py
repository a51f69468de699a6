"""Labelled answers as calibration sees them: a raw score, and whether it was right."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from paliflow.jobs.confidence.filling import raw_box_score, raw_score
from paliflow.metrics import box_iou
from paliflow.model import parse_detections

_IOU = 0.5


class Outcome(NamedTuple):
    """An answer, or a box of one, beside what is right."""

    task: str
    prompt: str
    label: str
    """The answer's text, or the box's label."""
    raw: float
    """0 to 1."""
    right: bool
    cluster: str
    """What it depends on: its image."""
    score: float | None = None
    """Of a box, the output's `score`."""
    confidence: float | None = None
    """Of a box, the output's, where the run was calibrated."""


def answer_outcome(
    answer: Mapping[str, Any], predicted: Mapping[str, Any], score: float
) -> Outcome:
    """An answer in words or of choices, right if it has at least half of a score.

    Args:
        answer: the annotation's row.
        predicted: the evaluation's row.
        score: 0 to 1, of this answer alone.
    """
    raw = raw_score(answer) or 0.0
    return Outcome(
        answer["task"], answer["prompt"], answer["text"], raw, score >= 0.5, _image(predicted)
    )


def box_outcomes(
    answer: Mapping[str, Any], predicted: Mapping[str, Any]
) -> tuple[list[Outcome], int]:
    """The boxes of an answer, and how many objects there were to find.

    The likelier chooses first among the objects of its label, the best of those with an IoU of at
    least 0.5 that are left. Of several right answers the one with which most boxes are right.
    """
    found = answer["detections"] or ()
    raw = [raw_box_score(each) or 0.0 for each in found]
    right, wanted = max(
        (_matched(answer, raw, reference) for reference in predicted["references"]),
        key=lambda matched: sum(matched[0]),
    )
    image = _image(predicted)
    outcomes = [
        Outcome(
            *(answer["task"], answer["prompt"], each["label"] or "", own, hit, image),
            *(each["score"], each.get("confidence")),
        )
        for each, own, hit in zip(found, raw, right, strict=True)
    ]
    return outcomes, wanted


def _matched(answer: Mapping[str, Any], raw: list[float], reference: str) -> tuple[list[bool], int]:
    """Which boxes match an object of a right answer, and how many objects that has."""
    found = answer["detections"] or ()
    objects = parse_detections(reference, answer["width"], answer["height"])
    right = [False] * len(found)
    if not objects or not found:
        return right, len(objects)
    sides = ("y_min", "x_min", "y_max", "x_max")
    wanted = np.array([[getattr(each, side) for side in sides] for each in objects])
    given = np.array([[each[side] for side in sides] for each in found])
    overlaps = box_iou(given[:, None], wanted[None])
    alike = [[each["label"] == other.label for other in objects] for each in found]
    overlaps = np.where(alike, overlaps, 0.0)
    for number in sorted(range(len(found)), key=lambda n: -raw[n]):
        place = int(overlaps[number].argmax())
        if overlaps[number, place] >= _IOU:
            right[number] = True
            overlaps[:, place] = 0.0
    return right, len(objects)


def _image(predicted: Mapping[str, Any]) -> str:
    own = predicted["details"].get("cluster")
    return str(own or predicted["image_sha256"] or predicted["image"])
