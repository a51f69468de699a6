"""A video, or a piece of one, to a model's inputs: sampled frames or clips, and what is broken."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paliflow.configs.run import ModelSpec
from paliflow.configs.video import VideoSpec
from paliflow.jobs import storage
from paliflow.jobs.plan import Item
from paliflow.jobs.reading import NO_IMAGE, Input, Moment, jpeg, read_content, unreadable
from paliflow.jobs.video.container import Damage, Frame, Video, VideoError, open_video
from paliflow.jobs.video.sampling import WHOLE, Piece, Sampler, exact, unit_s
from paliflow.jobs.video.stills import Animation, Still, Stills
from paliflow.model import preprocess

Source = TypeVar("Source", Video, Animation)


class Sample(NamedTuple):
    """A sampled frame."""

    clip: int
    """The number of the clip that it belongs to; 0 without clips."""
    frame: int
    timestamp_s: float
    distance: float | None
    """From the sample before it, if the spec asks for distances."""
    picture: Frame | Still

    @property
    def image(self) -> Image.Image:
        """The whole frame as RGB, upright."""
        return self.picture.upright()


def read_video(
    item: Item, spec: ModelSpec, size: int, thumbnail: int | None = None
) -> Iterator[Input | None]:
    """The inputs of a video in order, then one with an `error` if some of it is missing.

    Args:
        item: the video, or a piece of it.
        spec: its `video` says what is sampled.
        size: the network's, in pixels.
        thumbnail: pixels of the longer side of thumbnails at most; None makes none.

    Yields:
        Inputs; None from time to time while it takes long to reach the next.
    """
    video = spec.video
    assert video
    if not item.uri:
        yield Input(item, error=NO_IMAGE)
        return
    clip: list[Input] = []
    number = 0
    try:
        for sample in samples(item, spec):
            if sample is None:
                yield None
                continue
            ends = isinstance(sample, Damage) or sample.clip != number
            if clip and ends:
                yield _joined(clip, video)
                clip = []
            if isinstance(sample, Damage):
                yield missing(item, sample)
                continue
            width, height = sample.picture.size
            one = Input(
                item,
                width=width,
                height=height,
                pixels=preprocess(sample.picture.reduced(size), size),
                thumbnail=None if thumbnail is None else jpeg(sample.image, thumbnail),
                moment=Moment(sample.frame, sample.timestamp_s, None, sample.distance),
            )
            if video.clip:
                number = sample.clip
                clip.append(one)
            else:
                yield one
    except VideoError as error:
        yield Input(item, error=str(error))
    except (OSError, ValueError) as error:
        yield Input(item, error=unreadable(error))
    if clip:
        yield _joined(clip, video)


def samples(item: Item, spec: ModelSpec) -> Iterator[Sample | Damage | None]:
    """The sampled frames, then what damage there is; None for every frame that is passed over.

    Raises:
        VideoError: it is no video, or has too many pixels.
        OSError, ValueError: it cannot be read.
    """
    video = spec.video
    assert video
    piece = Piece(item.first or 0, item.last)
    total = video.count and not (video.clip and video.clip.length_s)
    duration = None
    if total:
        with opened(item, spec) as source:
            duration = source.measure()
    cuts = video.scenes or (video.clip and video.clip.scenes) or None
    with opened(item, spec) as source:
        begin, end = _bounds(video, piece, source)
        if source.breaks_off is not None and begin > source.breaks_off:
            return  # an earlier piece tells
        sampler = Sampler(video, piece, duration)
        before: NDArray[np.uint8] | None = None
        kept: tuple[int, NDArray[np.uint8]] | None = None
        only_keys = video.keyframes and not cuts
        for frame in source.frames(lambda: sampler.target, only_keys=only_keys):
            if frame is None:
                yield None
                continue
            new_scene = False
            if cuts:
                small = frame.small()
                new_scene = before is not None and distance(before, small) > cuts
                before = small
            clip = sampler.step(frame.stamp, new_scene)
            if sampler.done:
                break
            if clip is None:
                yield None
                continue
            apart = None
            if video.min_distance:
                small = frame.small()
                if kept and kept[0] == clip:
                    apart = distance(kept[1], small)
                    if apart < video.min_distance:
                        yield None
                        continue
                kept = clip, small
            yield Sample(clip, frame.stamp.frame, frame.timestamp_s, apart, frame)
        for damage in source.damages:
            start = source.breaks_off if damage.until is None else damage.until
            if (start is None or start >= begin) and (end is None or damage.after < end):
                yield damage.shifted(source.start)


@contextmanager
def opened(item: Item, spec: ModelSpec) -> Iterator[Video | Stills | Animation]:
    """The video, whatever it is.

    Raises:
        VideoError: it is no video, or has too many pixels.
        OSError, ValueError: it cannot be read.
    """
    assert spec.video
    if item.frames is not None:
        assert spec.video.frame_rate
        rate = exact(spec.video.frame_rate)
        hosts, upright = spec.https_hosts, spec.exif == "apply"
        yield Stills(item.frames, rate, spec.max_pixels, hosts, item.roots, upright=upright)
        return
    uri = item.archive or item.uri
    storage.check_host(uri, spec.https_hosts)
    if uri.lower().endswith(".webp"):
        animation = Animation(read_content(item, spec.https_hosts))
        yield _checked(animation, spec)
        return
    uri = storage.within(uri, item.roots)
    if "://" not in uri and item.archive is None:
        size = Path(uri).stat().st_size
        with open_video(uri, size) as video:
            yield _checked(video, spec)
        return
    with storage.open_binary(uri) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if item.archive is not None:
            assert item.offset is not None
            assert item.size is not None
            file, size = _Window(file, item.offset, item.size), item.size  # type: ignore[assignment]
        with open_video(file, size) as video:
            yield _checked(video, spec)


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The mean absolute difference of two shrunk frames, from 0 to 1."""
    return float(np.abs(one.astype(np.int16) - other).mean()) / 255


def missing(item: Item, damage: Damage) -> Input:
    """The error that stands for frames that cannot be had."""
    start = "from its start" if damage.after < 0 else f"after {float(damage.after):.3f} s"
    until = "to its end" if damage.until is None else f"until {float(damage.until):.3f} s"
    at = Moment(None, max(0.0, float(damage.after)))
    return Input(item, error=f"frames are missing {start} {until}: {damage.reason}", moment=at)


def _checked(video: Source, spec: ModelSpec) -> Source:
    if video.width * video.height > spec.max_pixels:
        raise VideoError(
            f"too many pixels: {video.width} x {video.height} are more than "
            f"max_pixels={spec.max_pixels}"
        )
    return video


def _bounds(
    video: VideoSpec, piece: Piece, source: Video | Stills | Animation | Animation
) -> tuple[Fraction, Fraction | None]:
    """Seconds from the first frame at which a piece begins and ends."""
    if piece == WHOLE:
        return Fraction(0), None
    assert not isinstance(source, Animation)
    unit = unit_s(video, source.frame_s)
    assert unit is not None
    return piece.first * unit, None if piece.last is None else piece.last * unit


def _joined(clip: list[Input], video: VideoSpec) -> Input:
    """One input of the frames of a clip, filled up to as many as the model wants."""
    assert video.clip
    moments = [each.moment for each in clip if each.moment]
    shown = tuple((moment.frame_index or 0, moment.timestamp_s) for moment in moments)
    pixels = [each.pixels for each in clip if each.pixels is not None]
    for n in range(len(pixels), video.clip.frames):
        pixels.append(pixels[-1] if video.clip.short == "pad" else pixels[n % len(clip)])
    return clip[0]._replace(pixels=np.stack(pixels), moment=Moment(*shown[0], shown))


class _Window(io.RawIOBase):
    """The bytes of a file from `offset`, `size` of them, as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
