"""Image files to the network's input: any Pillow mode, upright, square, in [-1, 1]."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Image.MAX_IMAGE_PIXELS = None  # `decode_image` takes the limit from the spec


class ImageTooLarge(ValueError):  # noqa: N818
    """The image has more pixels than allowed."""


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes the first frame of an image file to upright RGB.

    Alpha is dropped as in PaliGemma's own preprocessing, palettes are expanded, 16-bit greys are
    scaled to 8 bits, CMYK is converted, EXIF orientation is applied.

    Raises:
        ImageTooLarge: the header announces more than `max_pixels` pixels; nothing is decoded.
        OSError, ValueError, SyntaxError: not an image, or a broken one.
    """
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageTooLarge(f"{width} x {height} pixels are more than max_pixels={max_pixels}")
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        grey = np.asarray(image, np.float32)
        scale = 1.0 if grey.max(initial=0) < 256 else 255 / 65535
        return Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def preprocess(image: Image.Image, size: int) -> NDArray[np.float32]:
    """Squashes to `size` x `size` (bilinear, antialiased) and maps 0..255 to [-1, 1].

    Agrees with big_vision's `resize(antialias=True)|value_range(-1, 1)` within a grey level.

    Returns:
        float32 [size, size, 3].
    """
    resized = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32) / 127.5 - 1.0
