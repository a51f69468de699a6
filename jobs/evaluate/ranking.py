"""What predictions keep of the model besides texts: how sure it is of boxes, by which average
precision ranks them, and how likely it finds what is right."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paliflow.configs.base import SpecError
from paliflow.configs.prompts import task_of
from paliflow.jobs.confidence.outcomes import box_outcomes
from paliflow.metrics import METRICS
from paliflow.metrics.objects import RankedBoxes
from paliflow.model import parse_detections

BOXES = "detected"
"""The detail of a prediction with the boxes of its answer."""
LIKELIHOOD = "likelihood"
"""The detail with the negative log-probability of all right answers, and their tokens."""
_KEPT = (
    "label", "y_min", "x_min", "y_max", "x_max", "score", "label_probability", "location_mass",
    "confidence",
)  # fmt: skip
_SIDE = 1024
"""Pixels of an image that could not be read, whose objects are to be found all the same."""
_GROUPS = 40
"""Of images, which a jackknife leaves out one after the other."""


def kept_boxes(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What a prediction keeps of an annotation's row, so that it can be scored again."""
    found = [{name: box.get(name) for name in _KEPT} for box in answer["detections"] or ()]
    return {"width": answer["width"], "height": answer["height"], "detections": found}


def of_model(metrics: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `score` takes besides texts, from the details of predictions, as far as metrics need it:
    how sure the model is of boxes, and how likely it finds what is right."""
    chosen, found = [METRICS[name] for name in metrics], dict[str, Any]()
    if any(metric.by_score for metric in chosen):
        found["ranked"] = list(map(ranked_boxes, rows))
        found["coco_shares"] = partial(coco_shares, rows)
    if any(metric.by_likelihood for metric in chosen):
        found["likelihoods"] = [row["details"].get(LIKELIHOOD) or (0.0, 0) for row in rows]
    return found


def ranked_boxes(row: Mapping[str, Any]) -> RankedBoxes:
    """The boxes of an answer, each with its confidence, or if it has none with its raw score.

    Args:
        row: a prediction whose details have its boxes; what failed has none, and as many objects to
            find.
    """
    if not row["references"]:
        return RankedBoxes()
    if row["status"] != "error" and BOXES not in row["details"]:
        raise SpecError(
            "the predictions do not keep how sure the model was of its boxes: evaluate again"
        )
    outcomes, wanted = box_outcomes(_answer(row), row)
    scores = [box.raw if box.confidence is None else box.confidence for box in outcomes]
    return RankedBoxes(scores, [box.right for box in outcomes], wanted)


def coco_shares(rows: Sequence[Mapping[str, Any]], iou: float | None) -> NDArray[np.float64]:
    """What each prediction adds to COCO's average precision, which is the mean of the shares.

    It is no mean of images. Groups of images are left out in turn, and a share is the figure plus
    how much its group moves it, so that a bootstrap over shares finds its uncertainty (Efron and
    Tibshirani 1993, chapter 11).

    Args:
        rows: predictions whose details have their boxes, each an image of its own.
        iou: that a box needs; the mean of COCO's ten if not given.
    """
    evaluation = _evaluated(rows, iou)
    whole = _average(evaluation, ())
    groups = min(len(rows), _GROUPS)
    if groups < 2:
        return np.full(len(rows), whole)
    of_row = np.arange(len(rows)) % groups
    without = [_average(evaluation, np.flatnonzero(of_row == group)) for group in range(groups)]
    moved = ((groups - 1) * (whole - np.array(without)))[of_row]
    # A bootstrap takes the rows of a group, which are moved alike, for independent ones.
    return np.asarray(whole + (moved - moved.mean()) * (len(rows) / groups) ** 0.5)


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    """The annotation's row, as far as predictions keep it; of what failed, one without boxes."""
    kept = None if row["status"] == "error" else row["details"].get(BOXES)
    kept = kept or {"width": _SIDE, "height": _SIDE, "detections": []}
    return {**kept, "task": task_of(row["prefix"]), "prompt": row["prefix"]}


def _evaluated(rows: Sequence[Mapping[str, Any]], iou: float | None) -> COCOeval:
    """Matches boxes and objects in each row, label by label."""
    labels: dict[str, int] = {}
    wanted: list[dict[str, Any]] = []
    given: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        answer, ranked = _answer(row), ranked_boxes(row).scores
        for right in row["references"][:1]:
            for found in parse_detections(right, answer["width"], answer["height"]):
                box = (found.y_min, found.x_min, found.y_max, found.x_max)
                wanted.append(_box(number, found.label, box, labels) | {"id": len(wanted) + 1})
        for box, score in zip(answer["detections"], ranked, strict=bool(ranked)):
            sides = tuple(box[side] for side in ("y_min", "x_min", "y_max", "x_max"))
            given.append(_box(number, box["label"] or "", sides, labels) | {"score": score})
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in range(len(rows))],
        "categories": [{"id": label} for label in labels.values()],
        "annotations": wanted,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(given) if given else COCO()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        if iou is not None:
            evaluation.params.iouThrs = np.array([iou])
        evaluation.evaluate()
    return evaluation


def _box(
    image: int, label: str, sides: tuple[float, ...], labels: dict[str, int]
) -> dict[str, Any]:
    y_min, x_min, y_max, x_max = sides
    box = [x_min, y_min, x_max - x_min, y_max - y_min]
    category = labels.setdefault(label, len(labels) + 1)
    own = {"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
    return own | {"area": box[2] * box[3]}


def _average(evaluation: COCOeval, without: Sequence[int] | NDArray[np.intp]) -> float:
    """The average precision without some images; 1 if nothing is wanted and nothing given."""
    images = len(evaluation.params.imgIds)
    matched, left_out = evaluation.evalImgs, set(np.asarray(without).tolist())
    evaluation.evalImgs = [
        None if place % images in left_out else own for place, own in enumerate(matched)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    evaluation.evalImgs = matched
    precision = evaluation.eval["precision"]
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float(not any(matched))
