"""One input to pixels, or to the reason why not."""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paliflow import storage
from paliflow.configs.run import Decode
from paliflow.configs.safety import Verdict
from paliflow.jobs.media.edits import edit_of
from paliflow.jobs.media.pixels import (
    MAX_BYTES,
    FramePosition,
    RangeFile,
    Result,
    decode_to_result,
    unreadable,
)
from paliflow.jobs.media.places import read_place
from paliflow.jobs.runs.item import Item

NO_IMAGE = "the manifest names no image in this row"


class Input(NamedTuple):
    """An input that was read, or an `error`."""

    item: Item
    sha256: str | None = None
    """Of the bytes; None if they are no image, of which nothing is told."""
    width: int | None = None
    height: int | None = None
    """Pixels as the model sees them, upright by default; None if it could not be decoded."""
    pixels: NDArray[np.uint8] | None = None
    """What the network sees, [size, size, 3]; of a clip [frames, size, size, 3]."""
    thumbnail: bytes | None = None
    """The upright image as a JPEG, no larger than asked for."""
    error: str | None = None
    """Names no file, so that equal troubles read alike."""
    moment: FramePosition | None = None
    """Of a frame or a clip of a video."""
    orientation: int = 1
    """Of an image, as EXIF has it, whether or not that was undone."""
    view: NDArray[np.uint8] | None = None
    """[VIEW_PIXELS, VIEW_PIXELS, 3]: what filters see, if that was asked."""
    verdicts: tuple[Verdict, ...] = ()
    """What filters have said of it."""


def read_input(
    item: Item,
    *,
    size: int,
    max_pixels: int,
    thumbnail: int | None,
    https_hosts: tuple[str, ...],
    upright: bool = True,
    way: Decode = "exact",
) -> Input:
    """Reads, decodes and resizes one image; whatever is wrong with it becomes its `error`.

    Args:
        item: what to read.
        size: the network's, in pixels.
        max_pixels: an image that announces more is not decoded.
        thumbnail: pixels of the longer side of the thumbnail at most; None makes none.
        https_hosts: the hosts that `https://` images may come from.
        upright: turn it as its EXIF orientation says.
        way: as `ModelSpec.decode`.
    """
    if not item.uri:
        return Input(item, error=NO_IMAGE)
    try:
        data = read_content(item, https_hosts)
    except (OSError, ValueError) as error:
        return Input(item, error=unreadable(error))
    result = decode_to_result(
        data, size, max_pixels, thumbnail, upright=upright, way=way, edit=edit_of(item)
    )
    return finished(item, result, data)


def finished(item: Item, result: Result, data: bytes | None = None) -> Input:
    """What a decoder made of an item, as the network is given it.

    Args:
        item: what was read.
        result: of it, or of a part of it.
        data: the bytes, for their digest; nothing is told of those that are no image.
    """
    return Input(
        item,
        None if data is None or result.error else hashlib.sha256(data).hexdigest(),
        result.width,
        result.height,
        result.pixels,
        result.thumbnail,
        result.error,
        result.moment,
        result.orientation,
        result.view,
    )


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
    return read_place(item, uri, MAX_BYTES)


class Stored:
    """`Files` of this process: local ones, `gs://`, and the others that storage can read."""

    def __init__(self, https_hosts: tuple[str, ...]) -> None:
        self._https_hosts = https_hosts

    def read(self, item: Item) -> bytes:
        """As `read_content`."""
        return read_content(item, self._https_hosts)

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[tuple[BinaryIO, int]]:
        """A file or a place in an archive, never a pipe or a device; see `Files`."""
        uri = item.archive or item.uri
        storage.check_host(uri, self._https_hosts)
        with storage.open_binary(storage.within(uri, item.roots)) as file:
            if item.archive is None:
                yield file, file.seek(0, io.SEEK_END)
                return
            if item.size is None or uri.lower().endswith(".zip"):
                raise ValueError("videos are read from folders and from tars: unpack the file")

            def read(offset: int, size: int) -> bytes:
                file.seek((item.offset or 0) + offset)
                return file.read(size)

            yield RangeFile(read, item.size), item.size  # type: ignore[misc]
