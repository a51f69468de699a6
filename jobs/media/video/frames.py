"""Frames of a video as encoded images: the sampled ones, or some by their numbers."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal

from PIL import Image

from paliflow.configs.run import InputsSpec
from paliflow.jobs.media.pixels import Files, FramePosition, Length, Result, jpeg, unreadable
from paliflow.jobs.media.video.container import Video
from paliflow.jobs.media.video.damage import FrameGap, VideoError
from paliflow.jobs.media.video.picture import Frame
from paliflow.jobs.media.video.reading import missing, opened, samples
from paliflow.jobs.media.video.sampling import Target
from paliflow.jobs.runs.item import Item


def sampled_frames(
    item: Item,
    files: Files,
    spec: InputsSpec,
    kind: Literal["jpeg", "png"],
    quality: int,
    longest_side: int | None,
    *,
    square_pixels: bool,
) -> Iterator[Result | None]:
    """A video's sampled frames, encoded, as thumbnails; then an error if some are missing.

    Args:
        item: the video.
        files: where its bytes come from.
        spec: its `video` says what is sampled.
        kind: of image.
        quality: of JPEG.
        longest_side: pixels of it at most; None shrinks nothing.
        square_pixels: whether frames with pixels that are not square are stretched.
    """
    try:
        for sample in samples(item, files, spec):
            if sample is None:
                yield None
            elif isinstance(sample, FrameGap):
                yield missing(sample)
            else:
                picture, aspect = sample.picture, Fraction(1)
                if isinstance(picture, Frame):
                    aspect = picture.pixel_aspect
                image = sample.image
                if square_pixels and aspect != 1:
                    width = max(1, round(image.width * aspect))
                    if width * image.height > spec.max_pixels:
                        raise VideoError(f"too many pixels: {width} x {image.height}, stretched")
                    image = image.resize((width, image.height))
                    aspect = Fraction(1)
                image = _shrunk(image, longest_side)
                yield Result(
                    width=image.width,
                    height=image.height,
                    thumbnail=_encoded(image, kind, quality),
                    moment=sample.position._replace(pixel_aspect=float(aspect)),
                )
    except VideoError as error:
        yield Result(error=str(error))
    except (OSError, ValueError) as error:
        yield Result(error=unreadable(error))


def chosen_frames(
    item: Item, files: Files, spec: InputsSpec, wanted: Sequence[int], side: int
) -> Iterator[Result | None]:
    """The wanted frames that are still there, without what lies between them where that can be.

    Args:
        item: the video.
        files: where its bytes come from.
        spec: its `video` says how frames that are images become a video.
        wanted: the frames' numbers, ascending.
        side: pixels of their longer side at most.
    """
    remaining = list(wanted)
    try:
        with opened(item, files, spec) as source:
            for frame in source.frames(lambda: Target(frame=remaining[0])):
                if frame is None or frame.stamp.frame < remaining[0]:
                    yield None
                    continue
                if frame.stamp.frame == remaining[0]:
                    image = frame.upright()
                    yield Result(
                        width=image.width,
                        height=image.height,
                        thumbnail=jpeg(image, side),
                        moment=FramePosition(frame.stamp.frame, frame.timestamp_s),
                    )
                while remaining and remaining[0] <= frame.stamp.frame:
                    del remaining[0]
                if not remaining:
                    return
    except VideoError as error:
        yield Result(error=str(error))
    except (OSError, ValueError) as error:
        yield Result(error=unreadable(error))


def length(item: Item, files: Files, spec: InputsSpec) -> Result:
    """How long a video is; an error if it has no table of its frames."""
    try:
        with opened(item, files, spec) as source:
            if not isinstance(source, Video) or not source.tabled:
                return Result(error="it has no table of its frames")
            source.check()
            frames, seconds = source.frame_count, source.duration
    except VideoError as error:
        return Result(error=str(error))
    except (OSError, ValueError) as error:
        return Result(error=unreadable(error))
    return Result(length=Length(frames, seconds.numerator, seconds.denominator))


def _shrunk(image: Image.Image, side: int | None) -> Image.Image:
    if side is None or max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side))
    return small


def _encoded(image: Image.Image, kind: str, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": quality} if kind == "jpeg" else {}))
    return file.getvalue()
