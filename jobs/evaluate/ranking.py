"""Boxes of evaluated answers as average precision ranks them."""

from collections.abc import Mapping
from typing import Any

from paliflow.jobs.confidence.outcomes import box_outcomes
from paliflow.metrics.objects import RankedBoxes


def ranked_boxes(answer: Mapping[str, Any], predicted: Mapping[str, Any]) -> RankedBoxes:
    """The boxes of an answer, each with its confidence, or if it has none with its raw score.

    Args:
        answer: the annotation's row.
        predicted: the evaluation's row.
    """
    if predicted["status"] == "error" or not predicted["references"]:
        return RankedBoxes()
    outcomes, wanted = box_outcomes(answer, predicted)
    scores = [box.raw if box.confidence is None else box.confidence for box in outcomes]
    return RankedBoxes(scores, [box.right for box in outcomes], wanted)
