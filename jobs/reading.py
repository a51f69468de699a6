"""One input to pixels, or to the reason why not."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from paliflow.jobs import storage
from paliflow.model import ImageTooLarge, decode_image, preprocess


class Input(NamedTuple):
    """An input that was read, or an `error`."""

    uri: str
    sha256: str | None = None
    """Of the bytes; None if they could not be read."""
    width: int | None = None
    height: int | None = None
    """Pixels, upright; None if it could not be decoded."""
    pixels: NDArray[np.float32] | None = None
    """What the network sees, [size, size, 3] in [-1, 1]."""
    error: str | None = None


def read_input(uri: str, size: int, max_pixels: int) -> Input:
    """Reads, decodes and resizes one image; whatever is wrong with it becomes its `error`."""
    if not uri:
        return Input(uri, error="the manifest names no image in this row")
    try:
        data = storage.read_bytes(uri)
    except FileNotFoundError:
        return Input(uri, error="not found")
    except PermissionError as error:
        return Input(uri, error=f"no access: {error}")
    except (OSError, ValueError) as error:
        return Input(uri, error=f"cannot be read: {error}")
    read = Input(uri, hashlib.sha256(data).hexdigest())
    try:
        image = decode_image(data, max_pixels)
    except (ImageTooLarge, Image.DecompressionBombError) as error:
        return read._replace(error=f"too many pixels: {error}")
    except UnidentifiedImageError:
        return read._replace(error="not an image" if data else "empty file")
    except Exception as error:  # Pillow's plugins raise nearly anything on broken files
        return read._replace(error=f"truncated or broken image: {error or type(error).__name__}")
    return read._replace(width=image.width, height=image.height, pixels=preprocess(image, size))
