"""How far the region that an answer begins with is the one that a benchmark's row describes."""

import re
from collections.abc import Mapping
from typing import Any

from pycocotools import mask as coco_mask

from paliflow import model
from paliflow.metrics import box_iou
from paliflow.model import parse_detections

_ANSWER = re.compile(r"(?:<loc\d{4}>){4}(?:<seg\d{3}>){16}")


def region_overlap(
    text: str, wanted: Mapping[str, Any], decoder: "model.MaskDecoder | None" = None
) -> float:
    """The IoU of masks where there is a decoder, else of boxes; 0 of an answer that has no region.

    As big_vision's evaluator of RefCOCO: an answer begins with four `<loc>` and 16 `<seg>` tokens,
    and what follows does not count; without the latter there is no box either. Boxes are compared
    in fractions of the image, masks in its pixels.

    Args:
        text: the answer.
        wanted: `box` in fractions of the image and `mask`, COCO's run-length encoding.
        decoder: turns codes into masks.
    """
    if not (begun := _ANSWER.match(text)):
        return 0.0
    height, width = wanted["mask"]["size"] if decoder else (1, 1)
    found = next(iter(parse_detections(begun[0], width, height, decoder)), None)
    if found is None or found.codes is None:
        return 0.0
    if decoder is None:
        return float(box_iou((found.y_min, found.x_min, found.y_max, found.x_max), wanted["box"]))
    if not coco_mask.area(found.mask):
        return 0.0
    return float(coco_mask.iou([found.mask], [wanted["mask"]], [False])[0, 0])
