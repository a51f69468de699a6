"""`Edit`: what is drawn on an image before the model sees it, how it is turned, or which part of a
video counts."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field, model_validator

from paliflow.jobs.runs.item import Item
from paliflow.model.images import Decoded

_RED = (255, 0, 0)
_LARGEST = 100
"""Points of a label's font at most."""
_ROUNDED = 3
"""Points by which a font may be larger than in proportion, whose glyphs are whole pixels."""
_TEXT = 200
"""Characters of a label at most."""
_Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Box = tuple[_Finite, _Finite, _Finite, _Finite]
"""Left, top, right, bottom."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(_Part):
    """A white rectangle with a text in it, over what was there."""

    box: Box
    """In the file's pixels."""
    text: Annotated[str, Field(max_length=_TEXT)]


class Outline(_Part):
    """A red rectangle of one pixel's width, drawn on what the network sees."""

    box: Box
    """In pixels of a canvas."""
    canvas_height: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """How high that is; it is as wide as the image is in proportion."""


class Edit(_Part):
    """What one example changes of the file that it is about; nothing by default."""

    turns: Annotated[int, Field(ge=0, le=3)] = 0
    """Quarter turns, counterclockwise."""
    labels: tuple[Label, ...] = ()
    outline: Outline | None = None
    segment: tuple[float, float] | None = None
    """Seconds of a video from its first frame: from the first to before the second."""

    @model_validator(mode="after")
    def _has_a_segment_in_order(self) -> "Edit":
        if self.segment and not 0 <= self.segment[0] < self.segment[1]:
            raise ValueError("a segment ends before it begins")
        return self

    @property
    def of_picture(self) -> bool:
        """Whether it changes what a picture looks like."""
        return bool(self.turns or self.labels or self.outline)

    def applied(self, decoded: Decoded) -> Decoded:
        """An image with its labels, turned; the outline comes after it was resized.

        Args:
            decoded: not decoded for a network (`side`), whose picture has no box in its image.
        """
        image, (width, height) = decoded.image, (decoded.width, decoded.height)
        if self.labels:
            image = image.copy()
            across, down = image.width / width, image.height / height
            for label in self.labels:
                _write(image, label, across, down)
        if self.turns:
            image = image.transpose(Image.Transpose(Image.Transpose.ROTATE_90 + self.turns - 1))
        if self.turns % 2:
            width, height = height, width
        return decoded._replace(image=image, width=width, height=height)

    def outlined(self, pixels: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
        """The outline on a resized picture uint8 [H, W, 3], which is copied.

        The corners are rounded down to pixels as TensorFlow's `draw_bounding_boxes` does it, with
        which big_vision draws; what lies outside of the picture is not drawn.

        Args:
            pixels: of the picture.
            aspect: of the file, width over height.
        """
        if not self.outline:
            return pixels
        pixels = pixels.copy()
        height, width = pixels.shape[:2]
        tall = self.outline.canvas_height
        sides = ((tall * aspect, width), (tall, height)) * 2
        x_min, y_min, x_max, y_max = (
            int(np.float32(each / canvas) * np.float32(side - 1))
            for each, (canvas, side) in zip(self.outline.box, sides, strict=True)
        )
        rows = slice(max(0, y_min), max(0, y_max + 1))
        columns = slice(max(0, x_min), max(0, x_max + 1))
        for y in {y_min, y_max} & set(range(height)):
            pixels[y, columns] = _RED
        for x in {x_min, x_max} & set(range(width)):
            pixels[rows, x] = _RED
        return pixels


def edit_of(item: Item) -> Edit | None:
    """What an item changes of its file; None if nothing.

    Raises:
        ValueError: its JSON is of no `Edit`.
    """
    return Edit.model_validate_json(item.edit) if item.edit else None


def _write(image: Image.Image, label: Label, across: float, down: float) -> None:
    """Fills a label's rectangle and writes its text in the largest font that fits, at the top."""
    left, right = sorted(np.clip((label.box[0] * across, label.box[2] * across), 0, image.width))
    top, bottom = sorted(np.clip((label.box[1] * down, label.box[3] * down), 0, image.height))
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right, bottom), fill="white")
    _, _, wide, tall = draw.textbbox((0, 0), label.text, font=_font(_LARGEST))
    share = min((right - left) / max(wide, 1), (bottom - top) / max(tall, 1))
    about = int(_LARGEST * share) + _ROUNDED
    for points in range(min(_LARGEST, about), 0, -1):
        font = _font(points)
        _, _, wide, tall = draw.textbbox((0, 0), label.text, font=font)
        if (wide <= right - left and tall <= bottom - top) or points == 1:
            draw.text(((left + right) / 2, top), label.text, fill="black", font=font, anchor="ma")
            return


def _font(points: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, which needs no file: a decoder can open none."""
    font = ImageFont.load_default(points)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
