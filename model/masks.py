"""A decoded mask pasted into its box, as COCO's run-length encoding."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask


class Rle(TypedDict):
    """A COCO run-length encoding."""

    size: list[int]  # height, width
    counts: str


def paste_mask(
    mask: NDArray[np.float32], box: tuple[float, float, float, float], width: int, height: int
) -> Rle:
    """Pastes a decoded mask into its box and encodes the image-sized result.

    As big_vision's RefCOCO evaluator: the box is truncated to pixels, the mask is resized
    bilinearly, and a pixel belongs to it where the value is above 0.

    Args:
        mask: float32 [64, 64].
        box: y_min, x_min, y_max, x_max in pixels.
        width, height: of the image.
    """
    y_min, x_min, y_max, x_max = (int(value) for value in box)
    whole = np.zeros((height, width), np.uint8, order="F")
    if y_max > y_min and x_max > x_min:
        size = (x_max - x_min, y_max - y_min)
        resized = Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR)
        whole[y_min:y_max, x_min:x_max] = np.asarray(resized) > 0
    rle = coco_mask.encode(whole)
    return Rle(size=[height, width], counts=rle["counts"].decode("ascii"))
