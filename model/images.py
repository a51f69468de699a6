"""Image files to the network's input: any Pillow mode, upright, square, in [-1, 1]."""

import io
import math
import threading
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from paliflow.model.avif import coded_pixels

Image.MAX_IMAGE_PIXELS = None  # `decode_image` takes the limit from the caller

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is tried; Pillow knows more, some of which starts other programs."""
LARGE = 2**25
"""Pixels above which an image is reduced while it is decoded, and no other beside it."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's Orientation, tag 0x0112 (Exif 3.0, 4.6.5.1.7)."""
_SIDEWAYS = [_UPRIGHT[value] for value in (5, 6, 7, 8)]
_COSTLY_FORMATS = ("AVIF", "JPEG2000", "WEBP")
_COSTLY = 3
"""Their decoders need 9 to 18 bytes a pixel, others 4 to 7."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_MAX_SCANS = 20
"""A progressive JPEG goes over its pixels once a scan, and may have thousands of empty ones."""
one_at_a_time: AbstractContextManager[object] = threading.Lock()
"""Held while an image above `LARGE` is decoded; decoder processes put one here that they share."""


class ImageTooLarge(ValueError):  # noqa: N818
    """The image has more pixels than allowed."""


class Decoded(NamedTuple):
    """An image, upright."""

    image: Image.Image
    """RGB; of a file of more than `LARGE` pixels, reduced by a whole factor to fewer."""
    width: int
    height: int
    """Pixels of the file."""


def decode_image(data: bytes, max_pixels: int) -> Decoded:
    """Decodes the first frame of an image file of one of `FORMATS`.

    Alpha is dropped as in PaliGemma's own preprocessing, palettes are expanded, 16-bit greys are
    scaled to 8 bits, CMYK is converted, EXIF orientation is applied if it can be read.

    Raises:
        ImageTooLarge: the header, a TIFF's tile or an AVIF's frame announces more than
            `max_pixels` pixels, or a third of them in a format that takes three times the memory;
            nothing is decoded.
        OSError, ValueError, SyntaxError: not an image, or a broken one.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        limit = max_pixels // (_COSTLY if image.format in _COSTLY_FORMATS else 1)
        if width * height > limit:
            share = f" / {_COSTLY} for {image.format}" * (limit < max_pixels)
            raise ImageTooLarge(
                f"{width} x {height} pixels are more than max_pixels={max_pixels}{share}"
            )
        inner = _inner_pixels(image, data)
        if inner > limit:
            raise ImageTooLarge(
                f"{width} x {height} pixels, but {inner} in one of its tiles or frames, are more "
                f"than max_pixels={max_pixels}"
            )
        scans = data.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 1
        if width * height * scans > _MAX_SCANS * max_pixels:
            raise ImageTooLarge(
                f"{width} x {height} pixels in {scans} scans are more than max_pixels={max_pixels} "
                f"in {_MAX_SCANS}"
            )
        if width * height <= LARGE:
            image.load()
            rgb = _to_rgb(image, _brightest(image))
        else:
            with one_at_a_time:
                rgb = _reduced(image)
        turn = _UPRIGHT.get(_orientation(image))
    if turn is None:
        return Decoded(rgb, width, height)
    if turn in _SIDEWAYS:
        width, height = height, width
    return Decoded(rgb.transpose(turn), width, height)


def _inner_pixels(image: Image.Image, data: bytes) -> int:
    """Pixels of the largest part that is decoded as a whole, where that may exceed the image."""
    if image.format == "AVIF":
        return coded_pixels(data)
    if isinstance(image, TiffImageFile):
        sides = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        return math.prod(side if isinstance(side, int) else 0 for side in sides)
    return 0


def has_image_magic(data: bytes) -> bool:
    """Whether a file starts like one of `FORMATS`, whatever follows."""
    starts = (Image.OPEN[name][1] for name in FORMATS)
    return any(start is not None and start(data[:16]) is True for start in starts)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block raises nearly anything, and its picture is whole
        return 1


def _reduced(image: Image.Image) -> Image.Image:
    """Decodes with room for one copy of the file's pixels, strip by strip from there."""
    factor = _factor(image)
    image.draft("RGB", (image.width // factor, image.height // factor))  # JPEG decodes to fewer
    image.load()
    factor = _factor(image)
    rgb = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    strip = 64 * factor
    brightest = _brightest(image)
    for top in range(0, image.height, strip):
        box = (0, top, image.width, min(top + strip, image.height))
        rgb.paste(_to_rgb(image.crop(box), brightest).reduce(factor), (0, top // factor))
    return rgb


def _factor(image: Image.Image) -> int:
    return math.ceil(math.sqrt(image.width * image.height / LARGE))


def _brightest(image: Image.Image) -> float:
    if image.mode not in ("I", "F"):
        return 255.0
    _, brightest = image.getextrema()
    assert not isinstance(brightest, tuple)
    return brightest


def _to_rgb(image: Image.Image, brightest: float) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        grey = np.nan_to_num(np.asarray(image, np.float32))
        scale = 1.0 if brightest < 256 else 255 / 65535
        return Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def preprocess(image: Image.Image, size: int) -> NDArray[np.float32]:
    """Squashes to `size` x `size` (bilinear, antialiased) and maps 0..255 to [-1, 1].

    Agrees with big_vision's `resize(antialias=True)|value_range(-1, 1)` within a grey level.

    Returns:
        float32 [size, size, 3].
    """
    return normalize(resize(image, size))


def resize(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Squashes to `size` x `size` (bilinear, antialiased); uint8 [size, size, 3]."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def normalize(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Maps 0..255 to [-1, 1]."""
    values = pixels.astype(np.float32)
    values /= 127.5  # in place: fresh memory costs more than the arithmetic
    values -= 1.0
    return values
