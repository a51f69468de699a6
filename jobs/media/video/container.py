"""A video file, opened: its frames, decoded from where they matter.

PyAV (FFmpeg) demuxes and decodes. Positions are exact: a frame's index counts the frames that are
presented before it, whether or not the file was read from the start.
"""

import io
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from typing import Any, BinaryIO

import av
from av.error import FFmpegError

from paliflow.jobs.media.video.damage import FrameGap, VideoError
from paliflow.jobs.media.video.lengths import HEAD, announced_size
from paliflow.jobs.media.video.packets import Break, Coded, Packets, plain
from paliflow.jobs.media.video.picture import Frame
from paliflow.jobs.media.video.pictures import Pictures, Shown
from paliflow.jobs.media.video.sampling import FrameTime, Target
from paliflow.jobs.media.video.table import REORDERED, Table, read_index, read_table

# fmt: off
VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".apng", ".asf", ".avi", ".f4v", ".flv", ".gif", ".m2t", ".m2ts", ".m2v",
    ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts", ".vob",
    ".webm", ".webp", ".wmv",
)
# fmt: on
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,webp_anim,h264,hevc,ivf,ogg"
    ",apng,mpegvideo,mxf"
)
"""Of FFmpeg; playlists, which name further files and hosts, are not among them."""
_WORTH_A_JUMP = 8
"""Frames that have to lie between for a jump to be cheaper than decoding them."""
_SIGN_EVERY = 32


class Video:
    """An open file. Use `open_video`."""

    def __init__(
        self, container: Any, file: BinaryIO, size: int, announced: int | None, max_pixels: int
    ) -> None:
        """
        Raises:
            VideoError: it has no video stream, or one that cannot be decoded.
        """
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            raise VideoError("no video stream")
        if stream.codec_context is None:
            raise VideoError("its codec is unknown")
        if (entries := len(stream.index_entries)) > size:
            raise VideoError(f"its table has {entries} frames, more than the file has bytes")
        self._container, self._stream = container, stream
        self._file, self._size, self._announced = file, size, announced
        self._max_pixels = max_pixels
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(max_pixels)}
        self._base: Fraction = stream.time_base or Fraction(1, 1000)
        self._start = stream.start_time
        self.start = (self._start or 0) * self._base
        """Seconds at which the first frame is shown."""
        # AVI has no presentation times: of reordered frames it says only when they are decoded.
        self._dealt = container.format.name == "avi" and stream.codec_context.has_b_frames
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        self._aspect = Fraction(stream.sample_aspect_ratio or 1)
        self.damages: list[FrameGap] = []
        """What `frames` has come over so far."""
        self._previous: Shown | None = None

    @cached_property
    def _table(self) -> Table:
        return read_table(self._stream, self._container.format.name)

    @cached_property
    def _whole(self) -> int:
        """How many entries of the table lie within the file as it is."""
        ends, size = self._table.ends, self._size
        if not ends or max(ends) <= size:
            return len(ends)
        return next(n for n, end in enumerate(ends) if end > size)

    @property
    def tabled(self) -> bool:
        """Whether frames can be counted without reading those before."""
        return bool(self._table.shown)

    @property
    def frame_count(self) -> int:
        """Of the table."""
        return len(self._table.shown)

    @property
    def frame_s(self) -> Fraction:
        """Seconds from frame to frame on average, by the table."""
        return self.duration / self.frame_count

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame to the end of the last, by the table."""
        span = self._table.span
        return self._lasting(span[-1] - span[0] if span else 0, len(span))

    @property
    def breaks_off(self) -> Fraction | None:
        """Seconds at which a tabled file lacks its rest; None if it is whole."""
        times = self._table.times
        if self._whole == len(times):
            return None
        return max(Fraction(0), (times[self._whole] - times[self._table.shown[0]]) * self._base)

    @property
    def previous(self) -> Frame | None:
        """The frame that is presented before the one that `frames` gave last, given or left out;
        the last one, once it has given all. None where that is unknown, after a jump."""
        return None if self._previous is None else self._frame(self._previous)

    def check(self) -> None:
        """Looks at the first packet.

        Raises:
            VideoError: its frames are encrypted.
        """
        next(iter(self._packets()), None)

    def frames(
        self, target: Callable[[], Target], *, only_keys: bool = False
    ) -> Iterator[Frame | None]:
        """Decodes the frames in order; damaged ones are left out and told by `damages`.

        Args:
            target: asked before each frame; what lies before it may be left out.
            only_keys: decode no others.

        Yields:
            Frames; None now and then while frames are left out.

        Raises:
            VideoError: its frames are encrypted.
        """
        last = -1  # index of the last frame that was decoded whole
        good = Fraction(-1)
        trouble: str | None = None
        mended = False  # whether the trouble is the clock's alone
        wanted = target()
        floor = self._floor(wanted)
        jump = self._jump(wanted, last)
        goal = wanted if jump else None  # of a jump, until it is seen where that led
        while True:
            pictures, found_all = self._run(jump, only_keys=only_keys)
            for found in found_all:
                if not isinstance(found, Shown):
                    clock = isinstance(found, Break) and not found.lost
                    if trouble is None or (mended and not clock):
                        trouble = found.reason if isinstance(found, Break) else found
                        trouble, mended = self._too_large(self._stream) or trouble, clock
                    continue
                if found.frame <= last:
                    continue
                if too_large := self._too_large(found.picture):
                    if trouble is None or mended:
                        trouble, mended = too_large, False
                    continue
                if not trouble and not goal and floor is not None and found.ticks < floor:
                    last, self._previous = found.frame, found
                    if last % _SIGN_EVERY == 0:
                        yield None
                    continue
                frame = self._frame(found)
                if goal and _is_beyond(frame.stamp, goal):  # the jump went too far
                    jump, goal = self._start, None
                    break
                goal = None
                if trouble:
                    if not found.key and not mended:
                        continue  # it was made from what is missing
                    estimated, pictures.estimated = pictures.estimated, False
                    gap = FrameGap(good, frame.stamp.time, trouble, mended, estimated)
                    self.damages.append(gap)
                    trouble = None
                last, good = found.frame, frame.stamp.time
                yield frame
                self._previous = found
                wanted = target()
                floor = self._floor(wanted)
                if jump := self._jump(wanted, last):
                    goal, self._previous = wanted, None
                    break
            else:
                if self._whole < len(self._table.times):
                    trouble = f"the file breaks off; its table has {self.frame_count} frames"
                elif not trouble and last < 0:
                    trouble = "it has no keyframes" if only_keys else "it has no frames"
                if trouble and not mended:
                    self.damages.append(FrameGap(good, None, trouble))
                return

    def measure(self) -> Fraction:
        """Seconds of the video by its frames' times, for which the whole file is read, or of one
        with a table the end."""
        if self.tabled:
            self._container.seek(self._table.times[-1], stream=self._stream, backward=True)
        packets = [each for each in self._packets() if isinstance(each, Coded)]
        shown = [each.ticks for each in packets if not each.packet.is_discard]
        times = [ticks for ticks in shown if ticks is not None]
        if self.tabled:
            if not times or self.breaks_off is not None:
                return self.duration
            return self._lasting(max(times) - self._start, self.frame_count)
        if not times:
            return len(shown) * self._step
        return self._lasting(max(times) - min(times), len(times))

    def _lasting(self, span: int, frames: int) -> Fraction:
        """Seconds that frames are shown, the last as long as the others on average.

        Args:
            span: ticks from the first to the last.
            frames: how many there are.
        """
        if frames < 2:
            return frames * self._step
        return (span + Fraction(span, frames - 1)) * self._base

    @property
    def _step(self) -> Fraction:
        """Seconds of a frame by the rate that the file says."""
        return 1 / Fraction(self._stream.average_rate or 25)

    def _jump(self, target: Target, last: int) -> int | None:
        """The presentation time to jump to, if that leaves out frames worth a jump."""
        table = self._table
        if not table.shown:
            return None
        # From decoding to presentation.
        delay = max(0, self._start - table.times[table.shown[0]])
        if target.time is not None:
            wanted = self._start + int(target.time // self._base)
            entry = bisect_left(table.times, wanted - delay + 1) - 1
        elif target.frame is not None:
            entry = bisect_left(table.before, max(1, target.frame - REORDERED)) - 1
            wanted = table.times[max(entry, 0)] + delay
        else:
            return None
        key = bisect_right(table.keys, entry) - 1
        if key <= 0 or table.before[table.keys[key]] <= last + _WORTH_A_JUMP:
            return None
        return int(wanted)

    def _floor(self, target: Target) -> int | None:
        """The presentation time before which frames need not even be looked at."""
        if target.time is None:
            return None
        return int((self._start or 0) + math.ceil(target.time / self._base))

    def _frame(self, shown: Shown) -> Frame:
        absolute = shown.ticks * self._base
        time = max(Fraction(0), absolute - self.start)
        stamp = FrameTime(shown.frame, time, shown.key)
        return Frame(stamp, float(absolute), shown.picture, self._aspect)

    def _run(
        self, jump: int | None, *, only_keys: bool
    ) -> tuple[Pictures, Iterator[Shown | str | Break]]:
        """The frames from a place on with their indices, and in between what is wrong where one is
        missing."""
        if jump is not None:
            self._container.seek(jump, stream=self._stream, backward=True)
        stream = self._stream
        anew, broken = jump is not None, self._whole < len(self._table.times)
        pictures = Pictures(stream, self._table, dealt=self._dealt, anew=anew, broken=broken)
        # Keyframes of which it is not said when they are shown are counted with all others.
        alone = only_keys and not self._dealt and self._start is not None
        if alone and not stream.codec_context.codec.intra_only:
            return pictures, pictures.keys(self._packets())
        return pictures, pictures.run(self._packets())

    def _packets(self) -> Packets:
        index = read_index(self._stream, self._container.format.name)
        return Packets(
            self._container,
            self._stream,
            self._table,
            index,
            self._file,
            self._size,
            self._announced,
        )

    def _too_large(self, picture: Any) -> str | None:
        """What is said of frames that have as many pixels as a picture, or as the stream now."""
        if picture.width * picture.height <= self._max_pixels:
            return None
        return (
            f"too many pixels: {picture.width} x {picture.height} are more than "
            f"max_pixels={self._max_pixels}"
        )


@contextmanager
def open_video(file: BinaryIO, size: int, max_pixels: int) -> Iterator[Video]:
    """Opens a video; it is read as far as needed.

    Args:
        file: one that can seek.
        size: of the file in bytes, by which it is seen whether its end is missing.
        max_pixels: a frame that has more is not decoded, wherever in the video it is.

    Raises:
        VideoError: it is no video.
    """
    if not size:
        raise VideoError("not a video: it is empty")
    file.seek(0)
    announced = announced_size(file.read(HEAD))
    file.seek(0)
    options = {
        "format_whitelist": _DEMUXERS,
        "protocol_whitelist": "file",
        "max_pixels": str(max_pixels),  # of frames that are decoded to find out about streams
    }
    buffered: Any = io.BufferedReader(file, 2**20)
    try:
        container = av.open(buffered, options=options, metadata_errors="replace")
    except FFmpegError as error:
        raise VideoError(f"not a video, or without its header: {plain(error)}") from None
    with container:
        yield Video(container, buffered, size, announced, max_pixels)


def _is_beyond(stamp: FrameTime, target: Target) -> bool:
    if target.time is not None:
        return stamp.time > target.time
    return target.frame is not None and stamp.frame > target.frame
