"""Videos that are no streams: frames in image files, so many a second, and animated WebP."""

import contextlib
import io
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paliflow.configs.base import SpecError
from paliflow.jobs.media.pixels import Files, decode, unreadable
from paliflow.jobs.media.video.damage import FrameGap, VideoError
from paliflow.jobs.media.video.picture import SMALL
from paliflow.jobs.media.video.sampling import FrameTime, Target
from paliflow.jobs.runs.item import Item
from paliflow.model.images import Decoded, squash

_CHUNK_HEADER = 8
_BROKEN = (OSError, EOFError, SyntaxError)
"""What Pillow raises of a frame."""
_SHORTEST_MS, _INSTEAD_MS = 10, 100
"""A frame of an animation that lasts less is shown for so long instead, as FFmpeg does."""


def group_frames(images: Iterable[Item], *, by_id: bool) -> Iterator[Item]:
    """Items that are each the frames of one video: neighbours with the same id, or in one folder.

    A folder's are in the order of the numbers in their names, a group's in that of their rows.

    Raises:
        SpecError: a group's rows do not follow each other.
    """
    seen: set[str] = set()
    for (key, _), group in groupby(
        images, lambda item: (item.id if by_id else posixpath.dirname(item.uri), item.roots)
    ):
        frames = list(group)
        if key in seen:
            raise SpecError(
                f"the frames of {key!r} are in several places; sort the manifest, so that those "
                "of a video follow each other"
            )
        seen.add(key or "")
        uris = [item.uri for item in frames if item.uri]
        if not by_id:
            uris.sort(key=_by_number)
        yield frames[0]._replace(uri=posixpath.dirname(uris[0]) if uris else "", frames=tuple(uris))


class Still(NamedTuple):
    """One frame."""

    stamp: FrameTime
    timestamp_s: float
    """Its number over the rate."""
    decoded: Decoded

    def upright(self) -> Image.Image:
        """As RGB."""
        return self.decoded.image

    def squashed(self, size: int) -> NDArray[np.uint8]:
        """uint8 [size, size, 3], for a network."""
        return squash(self.decoded, size)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the file's picture."""
        return self.decoded.width, self.decoded.height

    def small(self) -> NDArray[np.uint8]:
        """uint8 [SMALL, SMALL, 3]."""
        return np.asarray(self.upright().resize((SMALL, SMALL), Image.Resampling.BOX))


class ImageSequence:
    """The frames of a video in their order; only those that matter are read."""

    tabled = True

    def __init__(
        self,
        uris: Sequence[str],
        rate: Fraction,
        max_pixels: int,
        files: Files,
        *,
        upright: bool = True,
        side: int | None = None,
    ) -> None:
        self._uris, self._rate, self._side = uris, rate, side
        self._max_pixels, self._files, self._upright = max_pixels, files, upright
        self.damages: list[FrameGap] = []
        """What `frames` has come over so far."""

    breaks_off: Fraction | None = None
    start = Fraction(0)

    @property
    def frame_s(self) -> Fraction:
        """Seconds from frame to frame."""
        return 1 / self._rate

    def measure(self) -> Fraction:
        """Seconds of the video."""
        return len(self._uris) / self._rate

    def frames(self, target: Callable[[], Target], *, only_keys: bool = False) -> Iterator[Still]:
        """As `Video.frames`."""
        assert not only_keys
        good, trouble = Fraction(-1), None
        for index, uri in enumerate(self._uris):
            time = index / self._rate
            goal = target()
            if (goal.time or 0) > time or (goal.frame or 0) > index:
                continue
            try:
                content = self._files.read(Item(uri))
                decoded = decode(content, self._max_pixels, upright=self._upright, side=self._side)
            except (OSError, ValueError) as error:
                decoded = unreadable(error)
            if isinstance(decoded, str):
                trouble = trouble or f"{uri.rpartition('/')[2]}: {decoded}"
                continue
            if trouble:
                self.damages.append(FrameGap(good, time, trouble))
                trouble = None
            good = time
            yield Still(FrameTime(index, time), float(time), decoded)
        if trouble:
            self.damages.append(FrameGap(good, None, trouble))


def _by_number(uri: str) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10, and numbers of any length."""
    pieces = re.split(r"0*([0-9]+)", posixpath.basename(uri))
    return [(len(piece) if n % 2 else -1, piece) for n, piece in enumerate(pieces)]


class Animation:
    """An animated WebP, which FFmpeg does not read; its frames are decoded one by one."""

    breaks_off: Fraction | None = None
    start = Fraction(0)

    def __init__(self, content: bytes) -> None:
        """
        Raises:
            VideoError: it is none, or broken.
        """
        whole = _whole_chunks(content)
        self._cut = whole != content
        try:
            self._image = Image.open(io.BytesIO(whole), formats=["WEBP"])
        except (OSError, ValueError, SyntaxError) as error:
            raise VideoError(f"truncated or broken WebP: {error}") from None
        self.width, self.height = self._image.size
        self.damages: list[FrameGap] = []
        """What `frames` has come over so far."""

    def measure(self) -> Fraction:
        """Seconds until the last frame that is there ends."""
        end = Fraction(0)
        with contextlib.suppress(*_BROKEN):
            for _, each in self._shown():
                end = each
        return end

    def frames(self, target: Callable[[], Target], *, only_keys: bool = False) -> Iterator[Still]:
        """As `Video.frames`, none left out."""
        good, time = Fraction(-1), Fraction(0)
        trouble = "the file breaks off" if self._cut else None
        try:
            for index, (image, end) in enumerate(self._shown()):
                yield Still(FrameTime(index, time, True), float(time), Decoded(image, *image.size))
                good, time = time, end
        except _BROKEN as error:
            trouble = str(error)
        if trouble:
            self.damages.append(FrameGap(good, None, trouble))

    def _shown(self) -> Iterator[tuple[Image.Image, Fraction]]:
        """Each frame, and when it ends."""
        time = Fraction(0)
        for index in range(getattr(self._image, "n_frames", 1)):
            self._image.seek(index)
            image = self._image.convert("RGB")
            lasts = self._image.info.get("duration", 0)
            time += Fraction(lasts if lasts >= _SHORTEST_MS else _INSTEAD_MS, 1000)
            yield image, time


def _whole_chunks(content: bytes) -> bytes:
    """A WebP without the chunk in which it breaks off, which then is one that is whole."""
    announced = _CHUNK_HEADER + int.from_bytes(content[4:8], "little")
    if content[:4] != b"RIFF" or announced <= len(content):
        return content
    at = len(b"RIFF....WEBP")
    while at + _CHUNK_HEADER <= len(content):
        size = int.from_bytes(content[at + 4 : at + _CHUNK_HEADER], "little")
        end = at + _CHUNK_HEADER + size + size % 2
        if end > len(content):
            break
        at = end
    size = max(0, at - _CHUNK_HEADER)
    return content[:4] + size.to_bytes(4, "little") + content[_CHUNK_HEADER:at]
