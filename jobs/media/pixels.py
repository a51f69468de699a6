"""What a decoder makes of an input: pixels, or the reason why there are none."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from paliflow.configs.run import Decode
from paliflow.jobs.media.disguises import disguise
from paliflow.jobs.media.edits import Edit
from paliflow.jobs.media.metadata import without_metadata
from paliflow.jobs.runs.item import Item
from paliflow.model.images import (
    Decoded,
    ImageTooLarge,
    UnsupportedImage,
    decode_image,
    has_image_magic,
    squash,
    unsupported,
)

VIEW_PIXELS = 256
"""Of the sides of what filters see of an image."""
_COPY_QUALITY = 95
MAX_BYTES = 2**28
"""A file with more bytes becomes an error, so that no input takes a process's memory."""


class FramePosition(NamedTuple):
    """Where in a video something is."""

    frame_index: int | None
    """In the order of presentation, from 0; of a clip its first. None where a frame is missing."""
    timestamp_s: float
    """The presentation time in the container."""
    clip_frames: tuple[tuple[int, float], ...] | None = None
    """Index and time of each frame that the model is shown of a clip, before it is filled up."""
    frame_distance: float | None = None
    """How much it differs from the sample before, where the spec asks for it."""
    pixel_aspect: float | None = None
    """How many times as wide as high a pixel is to be shown."""
    note: str | None = None
    """From where on its time or index is not what the container says, if that is here."""


class Length(NamedTuple):
    """How long a video with a table of its frames is."""

    frames: int
    numerator: int
    denominator: int
    """Of its seconds."""


class Result(NamedTuple):
    """What became of an image, a frame or a clip: a process of its own may have made it."""

    width: int | None = None
    height: int | None = None
    """Pixels, upright; None if it could not be decoded."""
    pixels: NDArray[np.uint8] | None = None
    """[size, size, 3]; of a clip [frames, size, size, 3]."""
    thumbnail: bytes | None = None
    """The upright image as a JPEG, no larger than asked for; or encoded as the task says."""
    error: str | None = None
    """Names no file, so that equal troubles read alike."""
    moment: FramePosition | None = None
    """Of a frame or a clip of a video."""
    length: Length | None = None
    """Of a video, if that was asked."""
    orientation: int = 1
    """Of an image, as EXIF has it, whether or not that was undone."""
    view: NDArray[np.uint8] | None = None
    """[VIEW_PIXELS, VIEW_PIXELS, 3]: what filters see, if that was asked."""


class Files(Protocol):
    """How the bytes of an input are got."""

    def read(self, item: Item) -> bytes:
        """All of them.

        Raises:
            OSError, ValueError: they cannot be read, or are too many.
        """

    def open(self, item: Item) -> AbstractContextManager[tuple[BinaryIO, int]]:
        """A seekable file, and its size in bytes.

        Raises:
            OSError, ValueError: it cannot be read.
        """


class RangeFile(io.RawIOBase):
    """A seekable file of `size` bytes, of which `read(offset, size)` gives any range."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._at))
        data = self._read(self._at, size) if size else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def decode_to_result(
    data: bytes,
    size: int,
    max_pixels: int,
    thumbnail: int | None,
    *,
    upright: bool = True,
    way: Decode = "exact",
    view: bool = False,
    edit: Edit | None = None,
) -> Result:
    """Decodes, edits and resizes an image file; whatever is wrong with it becomes the `error`."""
    side = max(size, thumbnail or 0, VIEW_PIXELS if view else 0) if way == "fast" else None
    decoded = decode(data, max_pixels, upright=upright, side=None if edit else side)
    if isinstance(decoded, str):
        return Result(error=decoded)
    edit = edit or Edit()
    if edit.segment:
        return Result(error="a part of a video is wanted, and this is read as an image")
    if edit.of_picture and upright and decoded.orientation != 1:
        return Result(error="it is drawn on as its file has it, not upright: give exif: ignore")
    decoded = edit.applied(decoded)
    aspect = decoded.width / decoded.height
    return Result(
        width=decoded.width,
        height=decoded.height,
        pixels=edit.outlined(squash(decoded, size), aspect),
        thumbnail=None if thumbnail is None else _thumbnail(decoded.image, thumbnail, edit, aspect),
        orientation=decoded.orientation,
        view=squash(decoded, VIEW_PIXELS) if view else None,
    )


def copied(data: bytes, max_pixels: int, *, as_jpeg: bool) -> Result:
    """An image file without its metadata, as the `thumbnail`: the pixels as they are stored, where
    that can be done, else an upright JPEG of them.

    Args:
        data: the file.
        max_pixels: an image that announces more is an error.
        as_jpeg: whether it is encoded again in any case.
    """
    decoded = decode(data, max_pixels)
    if isinstance(decoded, str):
        return Result(error=decoded)
    try:
        copy = None if as_jpeg else without_metadata(data, decoded.orientation)
    except ValueError as error:
        return Result(error=f"truncated or broken image: {error}")
    if copy is None:
        copy = jpeg(decoded.image, max(decoded.width, decoded.height), _COPY_QUALITY)
    return Result(width=decoded.width, height=decoded.height, thumbnail=copy)


def decode(
    data: bytes, max_pixels: int, *, upright: bool = True, side: int | None = None
) -> Decoded | str:
    """As `decode_image`, or what is wrong with it.

    Raises:
        MemoryError: it needs more than there is.
    """
    try:
        return decode_image(data, max_pixels, upright=upright, side=side)
    except (ImageTooLarge, Image.DecompressionBombError) as error:
        return f"too many pixels: {error}"
    except UnsupportedImage as error:
        return f"unsupported image: {error}"
    except MemoryError:
        raise
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


def _thumbnail(image: Image.Image, side: int, edit: Edit, aspect: float) -> bytes:
    small = image
    if edit.outline:
        small = image.copy()
        small.thumbnail((side, side))
        small = Image.fromarray(edit.outlined(np.asarray(small), aspect))
    return jpeg(small, side)


def jpeg(image: Image.Image, side: int, quality: int = 85) -> bytes:
    """The image as a JPEG without metadata, its longer side `side` pixels at most."""
    small = image.copy()
    small.info = {}  # of which Pillow would write the comment
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality)
    return file.getvalue()
