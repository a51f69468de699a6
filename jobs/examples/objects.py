"""Answers to `detect` and `segment` as the objects that metrics compare."""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from paliflow.metrics import Object
from paliflow.model import Detection, MaskDecoder, parse_detections

_SIDE = 1023
"""Pixels of the square in which objects are compared, so that boxes lie on its grid; to stretch
two boxes or masks alike does not change their IoU."""


def objects_of(text: str, decoder: MaskDecoder | None = None) -> list[Object]:
    """The objects of an answer, or of what is right.

    Args:
        text: with location tokens.
        decoder: gives objects their masks, which are decoded when a metric asks for them.
    """

    def mask(found: Detection) -> NDArray[np.uint8]:
        (again,) = parse_detections(text[slice(*found.span)], _SIDE, _SIDE, decoder)
        assert again.mask
        return np.asarray(coco_mask.decode(again.mask))

    return [
        Object(
            found.label,
            (found.y_min, found.x_min, found.y_max, found.x_max),
            partial(mask, found) if decoder and found.codes else None,
        )
        for found in parse_detections(text, _SIDE, _SIDE)
    ]
