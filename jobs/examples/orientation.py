"""Boxes of the stored pixels of a picture that EXIF turns: they are turned with it."""

from dataclasses import replace

from paliflow.model import Detection, format_detections, parse_detections
from paliflow.model.detections import BINS

Size = tuple[int, int]
"""Width and height."""
_INVERSE = {6: 8, 8: 6}
"""The orientations that do not undo themselves."""


def boxes_in_picture(
    text: str, boxes: Size, picture: Size, orientation: int, *, upright: bool = True
) -> str:
    """Detections as the model is taught to write them, in the frame of the picture that it sees.

    Boxes of the picture's own size stay as they are, also where the picture is square or upside
    down, so that both frames have that size.

    Args:
        text: detections in the frame of a picture of the size `boxes`.
        boxes: the size that whoever drew them saw.
        picture: the size of what the model sees.
        orientation: EXIF's of the stored pixels.
        upright: whether the model sees the picture turned as EXIF says, or as it is stored.

    Raises:
        ValueError: the boxes are of neither frame, or have masks, which cannot be turned.
    """
    if boxes == picture:
        return text
    if boxes != picture[::-1] or orientation < 5:
        raise ValueError(
            f"the boxes are of {boxes[0]} x {boxes[1]} pixels, "
            f"the image has {picture[0]} x {picture[1]}"
        )
    turned = orientation if upright else _INVERSE.get(orientation, orientation)
    detections = [_turned(found, turned) for found in parse_detections(text, BINS, BINS)]
    labels = {
        label: place for place, label in enumerate(dict.fromkeys(d.label for d in detections))
    }
    detections.sort(key=lambda d: (labels[d.label], d.y_min, d.x_min))
    return format_detections(detections, BINS, BINS)


def _turned(detection: Detection, orientation: int) -> Detection:
    """A box, in bins, after the picture was turned as an orientation of 5 to 8 says."""
    if detection.codes:
        raise ValueError("a mask of the stored pixels, which cannot be turned with the image")
    rows, columns = (detection.x_min, detection.x_max), (detection.y_min, detection.y_max)
    if orientation in (7, 8):
        rows = BINS - rows[1], BINS - rows[0]
    if orientation in (6, 7):
        columns = BINS - columns[1], BINS - columns[0]
    return replace(detection, y_min=rows[0], x_min=columns[0], y_max=rows[1], x_max=columns[1])
