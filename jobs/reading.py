"""One input to pixels, or to the reason why not."""

import errno
import hashlib
import io
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from paliflow.jobs import storage
from paliflow.jobs.plan import Item
from paliflow.model import ImageTooLarge, decode_image, preprocess
from paliflow.model.images import has_image_magic

MAX_BYTES = 2**28
"""A file with more bytes becomes an error, so that no input takes a process's memory."""

_BYTES = re.compile(r"(.+)#bytes=(\d+)-(\d+)")


class Input(NamedTuple):
    """An input that was read, or an `error`."""

    item: Item
    sha256: str | None = None
    """Of the bytes; None if they could not be read."""
    width: int | None = None
    height: int | None = None
    """Pixels, upright; None if it could not be decoded."""
    pixels: NDArray[np.float32] | None = None
    """What the network sees, [size, size, 3] in [-1, 1]."""
    thumbnail: bytes | None = None
    """The upright image as a JPEG, no larger than asked for."""
    error: str | None = None
    """Names no file, so that equal troubles read alike."""


def read_input(
    item: Item, *, size: int, max_pixels: int, thumbnail: int | None, https_hosts: tuple[str, ...]
) -> Input:
    """Reads, decodes and resizes one image; whatever is wrong with it becomes its `error`.

    Args:
        item: what to read.
        size: the network's, in pixels.
        max_pixels: an image that announces more is not decoded.
        thumbnail: pixels of the longer side of the thumbnail at most; None makes none.
        https_hosts: the hosts that `https://` images may come from.
    """
    if not item.uri:
        return Input(item, error="the manifest names no image in this row")
    try:
        data = read_content(item, https_hosts)
    except FileNotFoundError:
        return Input(item, error="not found")
    except PermissionError as error:
        return Input(item, error=f"no access: {error.strerror}")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return Input(item, error=f"cannot be read: {reason or error}")
    read = Input(item, hashlib.sha256(data).hexdigest())
    try:
        image, width, height = decode_image(data, max_pixels)
    except (ImageTooLarge, Image.DecompressionBombError) as error:
        return read._replace(error=f"too many pixels: {error}")
    except UnidentifiedImageError:
        if has_image_magic(data):
            return read._replace(error="truncated or broken image: its header")
        return read._replace(error="not an image" if data else "empty file")
    except Exception as error:  # Pillow's plugins raise nearly anything on broken files
        return read._replace(error=f"truncated or broken image: {error or type(error).__name__}")
    return read._replace(
        width=width,
        height=height,
        pixels=preprocess(image, size),
        thumbnail=None if thumbnail is None else _jpeg(image, thumbnail),
    )


def read_content(item: Item, https_hosts: tuple[str, ...]) -> bytes:
    """The bytes of one input: a file, a place in an archive, or a URI from `lasting_uri`.

    Raises:
        OSError: it cannot be read, is too large, or at a host that is not listed.
        ValueError: its URI is of no kind that can be read.
    """
    if item.archive is None and (found := _BYTES.fullmatch(item.uri)):
        first, last = int(found[2]), int(found[3])
        item = item._replace(archive=found[1], offset=first, size=last - first + 1)
    uri = item.archive or item.uri
    storage.check_host(uri, https_hosts)
    if item.archive is None:
        return storage.read_bytes(uri, limit=MAX_BYTES)
    data = storage.read_bytes(uri, item.offset or 0, item.size, limit=MAX_BYTES)
    if len(data) != item.size:
        raise OSError(errno.EIO, "the archive ends before it")
    return data


def lasting_uri(item: Item) -> str:
    """Where an input is, for whoever has no plan: of a tar's member its bytes in the tar."""
    if item.archive is None or item.offset is None or item.size is None:
        return item.uri
    return f"{item.archive}#bytes={item.offset}-{item.offset + item.size - 1}"


def _jpeg(image: Image.Image, side: int) -> bytes:
    small = image.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()
