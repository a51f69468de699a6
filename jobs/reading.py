"""One input to pixels, or to the reason why not."""

import errno
import hashlib
import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from paliflow.jobs import storage
from paliflow.jobs.disguises import disguise
from paliflow.jobs.plan import Item
from paliflow.model import Decoded, ImageTooLarge, decode_image, preprocess
from paliflow.model.images import UnsupportedImage, has_image_magic, unsupported

MAX_BYTES = 2**28
"""A file with more bytes becomes an error, so that no input takes a process's memory."""

NO_IMAGE = "the manifest names no image in this row"


class Moment(NamedTuple):
    """Where in a video something is."""

    frame_index: int | None
    """In the order of presentation, from 0; of a clip its first. None where a frame is missing."""
    timestamp_s: float
    """The presentation time in the container."""
    clip_frames: tuple[tuple[int, float], ...] | None = None
    """Index and time of each frame that the model is shown of a clip, before it is filled up."""
    frame_distance: float | None = None
    """How much it differs from the sample before, where the spec asks for it."""


class Input(NamedTuple):
    """An input that was read, or an `error`."""

    item: Item
    sha256: str | None = None
    """Of the bytes; None if they are no image, of which nothing is told."""
    width: int | None = None
    height: int | None = None
    """Pixels as the model sees them, upright by default; None if it could not be decoded."""
    pixels: NDArray[np.float32] | None = None
    """What the network sees, [size, size, 3] in [-1, 1]; of a clip [frames, size, size, 3]."""
    thumbnail: bytes | None = None
    """The upright image as a JPEG, no larger than asked for."""
    error: str | None = None
    """Names no file, so that equal troubles read alike."""
    moment: Moment | None = None
    """Of a frame or a clip of a video."""
    orientation: int = 1
    """Of an image, as EXIF has it, whether or not that was undone."""


def read_input(
    item: Item,
    *,
    size: int,
    max_pixels: int,
    thumbnail: int | None,
    https_hosts: tuple[str, ...],
    upright: bool = True,
) -> Input:
    """Reads, decodes and resizes one image; whatever is wrong with it becomes its `error`.

    Args:
        item: what to read.
        size: the network's, in pixels.
        max_pixels: an image that announces more is not decoded.
        thumbnail: pixels of the longer side of the thumbnail at most; None makes none.
        https_hosts: the hosts that `https://` images may come from.
        upright: turn it as its EXIF orientation says.
    """
    if not item.uri:
        return Input(item, error=NO_IMAGE)
    try:
        data = read_content(item, https_hosts)
    except (OSError, ValueError) as error:
        return Input(item, error=unreadable(error))
    decoded = decode(data, max_pixels, upright=upright)
    if isinstance(decoded, str):
        return Input(item, error=decoded)
    return Input(
        item,
        hashlib.sha256(data).hexdigest(),
        width=decoded.width,
        height=decoded.height,
        pixels=preprocess(decoded.image, size),
        thumbnail=None if thumbnail is None else jpeg(decoded.image, thumbnail),
        orientation=decoded.orientation,
    )


def decode(data: bytes, max_pixels: int, *, upright: bool = True) -> Decoded | str:
    """As `decode_image`, or what is wrong with it."""
    try:
        return decode_image(data, max_pixels, upright=upright)
    except (ImageTooLarge, Image.DecompressionBombError) as error:
        return f"too many pixels: {error}"
    except UnsupportedImage as error:
        return f"unsupported image: {error}"
    except Exception as error:  # Pillow's plugins raise nearly anything on broken files
        if reason := unsupported(data, error):
            return f"unsupported image: {reason}"
        if not isinstance(error, UnidentifiedImageError):
            return f"truncated or broken image: {error or type(error).__name__}"
        if has_image_magic(data):
            return "truncated or broken image: its header"
        if said := disguise(data):
            return f"not an image, but {said}"
        return "not an image" if data else "empty file"


def unreadable(error: OSError | ValueError) -> str:
    """Why a file could not be read, in words that name no file."""
    if isinstance(error, FileNotFoundError):
        return "not found"
    if isinstance(error, PermissionError):
        return f"no access: {error.strerror}"
    reason = error.strerror if isinstance(error, OSError) else None
    return f"cannot be read: {reason or error}"


def read_content(item: Item, https_hosts: tuple[str, ...]) -> bytes:
    """The bytes of one input: a file, or a place in an archive.

    Raises:
        OSError: it cannot be read, is too large, at a host that is not listed, or outside of the
            item's roots.
        ValueError: its URI is of no kind that can be read.
    """
    uri = item.archive or item.uri
    storage.check_host(uri, https_hosts)
    uri = storage.within(uri, item.roots)
    if item.archive is None and "#bytes=" in uri:
        raise ValueError("#bytes= is for Paliflow's own plans; give the tar as input")
    if item.archive is None:
        return storage.read_bytes(uri, limit=MAX_BYTES)
    data = storage.read_bytes(uri, item.offset or 0, item.size, limit=MAX_BYTES)
    if len(data) != item.size:
        raise OSError(errno.EIO, "the archive ends before it")
    return data


def jpeg(image: Image.Image, side: int) -> bytes:
    """The image as a JPEG, its longer side `side` pixels at most."""
    small = image.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()
