"""A video, or a piece of one, to a model's inputs: sampled frames or clips, and what is broken."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paliflow.configs.run import Decode, InputsSpec
from paliflow.configs.video import VideoSpec
from paliflow.jobs.media.edits import Edit, edit_of
from paliflow.jobs.media.pixels import Files, FramePosition, Result, jpeg, unreadable
from paliflow.jobs.media.video.container import Video, open_video
from paliflow.jobs.media.video.damage import FrameGap, VideoError
from paliflow.jobs.media.video.picture import Frame
from paliflow.jobs.media.video.sampling import (
    WHOLE,
    Piece,
    Sampler,
    SegmentSampler,
    exact,
    unit_s,
)
from paliflow.jobs.media.video.stills import Animation, ImageSequence, Still
from paliflow.jobs.runs.item import Item

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
    note: str | None = None
    """From where on times or indices are not the container's, said of the first frame after."""

    @property
    def position(self) -> FramePosition:
        """Where it is, without the shape of its pixels."""
        return FramePosition(
            self.frame, self.timestamp_s, frame_distance=self.distance, note=self.note
        )

    @property
    def image(self) -> Image.Image:
        """The whole frame as RGB, upright."""
        return self.picture.upright()


def read_video(
    item: Item,
    files: Files,
    spec: InputsSpec,
    size: int,
    thumbnail: int | None = None,
    way: Decode = "exact",
) -> Iterator[Result | None]:
    """The frames or clips of a video in order, then an `error` if some of it is missing.

    Args:
        item: the video, or a piece of it.
        files: where its bytes come from.
        spec: its `video` says what is sampled.
        size: the network's, in pixels.
        thumbnail: pixels of the longer side of thumbnails at most; None makes none.
        way: as `ModelSpec.decode`, of frames that are image files.

    Yields:
        Results; None from time to time while it takes long to reach the next.
    """
    video = spec.video
    assert video
    clip: list[Result] = []
    number = 0
    edit = edit_of(item) or Edit()
    if edit.of_picture:
        yield Result(error="an image is to be drawn on, and this is read as a video")
        return
    empty = True
    try:
        side = max(size, thumbnail or 0) if way == "fast" else None
        for sample in samples(item, files, spec, side):
            if sample is None:
                yield None
                continue
            empty = False
            ends = isinstance(sample, FrameGap) or sample.clip != number
            if clip and ends:
                yield _joined(clip, video)
                clip = []
            if isinstance(sample, FrameGap):
                yield missing(sample)
                continue
            width, height = sample.picture.size
            one = Result(
                width=width,
                height=height,
                pixels=sample.picture.squashed(size),
                thumbnail=None if thumbnail is None else jpeg(sample.image, thumbnail),
                moment=sample.position,
            )
            if video.clip:
                number = sample.clip
                clip.append(one)
            else:
                yield one
    except VideoError as error:
        yield Result(error=str(error))
    except (OSError, ValueError) as error:
        yield Result(error=unreadable(error))
    else:
        if edit.segment and empty:
            yield Result(error="no frame of the video is in the segment that is asked about")
    if clip:
        yield _joined(clip, video)


def samples(
    item: Item, files: Files, spec: InputsSpec, side: int | None = None
) -> Iterator[Sample | FrameGap | None]:
    """The sampled frames, then where some are missing; None for every frame that is passed over.

    Args:
        item: the video, or a piece of it.
        files: where its bytes come from.
        spec: its `video` says what is sampled.
        side: as in `decode_image`, of frames that are image files.

    Raises:
        VideoError: it is no video, or has too many pixels.
        OSError, ValueError: it cannot be read.
    """
    video = spec.video
    assert video
    piece = Piece(item.first or 0, item.last)
    segment = (edit_of(item) or Edit()).segment
    total = video.count and not (video.clip and video.clip.length_s)
    duration = None
    if total:
        with opened(item, files, spec) as source:
            duration = source.measure()
    cuts = video.scenes or (video.clip and video.clip.scenes) or None
    with opened(item, files, spec, side) as source:
        sampler = Sampler(video, piece, duration)
        begin, end = _bounds(video, piece, source)
        if segment:
            begin, end = map(exact, segment)
            sampler = SegmentSampler(video, begin, end, duration)
        if source.breaks_off is not None and begin >= source.breaks_off and piece.first:
            return  # an earlier piece tells
        kept: tuple[int, NDArray[np.uint8]] | None = None
        noted = 0  # damages of which a sample tells what there is to note
        for clip, frame in _picked(source, sampler, cuts):
            if frame is None:
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
            notes = [each.shifted(source.start).note for each in source.damages[noted:]]
            noted = len(source.damages)
            note = "; ".join(filter(None, notes)) or None
            yield Sample(clip, frame.stamp.frame, frame.timestamp_s, apart, frame, note)
        for damage in source.damages:
            if damage.mended:
                continue
            start = source.breaks_off if damage.until is None else damage.until
            if (start is None or start >= begin) and (end is None or damage.after < end):
                yield damage.shifted(source.start)


def _picked(
    source: Video | ImageSequence | Animation, sampler: Sampler, cuts: float | None
) -> Iterator[tuple[int, Frame | Still | None]]:
    """The sampled frames and the clips that they belong to; None for others.

    Args:
        source: the video.
        sampler: of its frames.
        cuts: by how much a frame differs from the one before where a new scene begins.
    """
    before: NDArray[np.uint8] | None = None
    held: Frame | Still | None = None
    only_keys = sampler.only_keys and not cuts
    for frame in source.frames(lambda: sampler.target, only_keys=only_keys):
        if frame is None:
            yield 0, None
            continue
        new_scene = False
        if cuts:
            small = frame.small()
            new_scene = before is not None and distance(before, small) > cuts
            before = small
        shown = source.previous if isinstance(source, Video) else held
        clip, due = sampler.clip, sampler.missed(frame.stamp)
        if shown and not (source.damages and source.damages[-1].until == frame.stamp.time):
            yield from ((clip, shown) for _ in range(due))
        held = frame
        chosen = sampler.step(frame.stamp, new_scene)
        if sampler.done:
            return
        yield (0, None) if chosen is None else (chosen, frame)
    shown = source.previous if isinstance(source, Video) else held
    if shown and not (source.damages and source.damages[-1].until is None):
        yield from ((sampler.clip, shown) for _ in range(sampler.missed(None)))


@contextmanager
def opened(
    item: Item, files: Files, spec: InputsSpec, side: int | None = None
) -> Iterator[Video | ImageSequence | Animation]:
    """The video, whatever it is.

    Raises:
        VideoError: it is no video, or has too many pixels.
        OSError, ValueError: it cannot be read.
    """
    assert spec.video
    if item.frames is not None:
        assert spec.video.frame_rate
        rate, upright = exact(spec.video.frame_rate), spec.exif == "apply"
        yield ImageSequence(item.frames, rate, spec.max_pixels, files, upright=upright, side=side)
    elif (item.archive or item.uri).lower().endswith(".webp"):
        yield _checked(Animation(files.read(item)), spec.max_pixels)
    else:
        with files.open(item) as (file, size), open_video(file, size, spec.max_pixels) as video:
            yield _checked(video, spec.max_pixels)


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The mean absolute difference of two shrunk frames, from 0 to 1."""
    return float(np.abs(one.astype(np.int16) - other).mean()) / 255


def missing(damage: FrameGap) -> Result:
    """The error that stands for frames that cannot be had."""
    start = "from its start" if damage.after < 0 else f"after {float(damage.after):.3f} s"
    until = "to its end" if damage.until is None else f"until {float(damage.until):.3f} s"
    at = FramePosition(None, max(0.0, float(damage.after)))
    return Result(error=f"frames are missing {start} {until}: {damage.reason}", moment=at)


def _checked(video: Source, max_pixels: int) -> Source:
    if video.width * video.height > max_pixels:
        raise VideoError(
            f"too many pixels: {video.width} x {video.height} are more than max_pixels={max_pixels}"
        )
    return video


def _bounds(
    video: VideoSpec, piece: Piece, source: Video | ImageSequence | Animation
) -> tuple[Fraction, Fraction | None]:
    """Seconds from the first frame at which a piece begins and ends."""
    if piece == WHOLE:
        return Fraction(0), None
    assert not isinstance(source, Animation)
    unit = unit_s(video, source.frame_s)
    assert unit is not None
    return piece.first * unit, None if piece.last is None else piece.last * unit


def _joined(clip: list[Result], video: VideoSpec) -> Result:
    """One result of the frames of a clip, filled up to as many as the model wants."""
    assert video.clip
    moments = [each.moment for each in clip if each.moment]
    shown = tuple((moment.frame_index or 0, moment.timestamp_s) for moment in moments)
    pixels = [each.pixels for each in clip if each.pixels is not None]
    for n in range(len(pixels), video.clip.frames):
        pixels.append(pixels[-1] if video.clip.short == "pad" else pixels[n % len(clip)])
    note = "; ".join(each.note for each in moments if each.note) or None
    moment = FramePosition(*shown[0], shown, note=note)
    return clip[0]._replace(pixels=np.stack(pixels), moment=moment)
