"""A video file, opened: its table of frames, and its frames, decoded from where they matter.

PyAV (FFmpeg) demuxes and decodes. Positions are exact: a frame's index counts the frames that are
presented before it, whether or not the file was read from the start.
"""

import io
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image

from paliflow.jobs.video.lengths import HEAD, announced_size
from paliflow.jobs.video.sampling import Stamp, Target
from paliflow.jobs.video.wholeness import SilentDamage, is_cut_box, is_cut_ogg

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
_TABLED = "mov,mp4"
"""The demuxer that knows where every frame lies before it reads one."""
SMALL = 32
"""Pixels of the side of what frames are shrunk to for comparison."""
_WORTH_A_JUMP = 8
"""Frames that have to lie between for a jump to be cheaper than decoding them."""
_SIGN_EVERY = 32
_REORDERED = 16
"""Frames that may be coded after a keyframe and presented before it."""
_GAP = 512
"""Bytes between two packets of Matroska, whose own headers are some tens, that mean damage."""
_TAIL = 4096
"""Bytes after the last one that may be its index, if they are not a tenth of the file."""
_CHUNK_HEADER = 8
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


class VideoError(ValueError):
    """A file that is no video that can be read; the message names no file."""


class Damage(NamedTuple):
    """Where frames are missing."""

    after: Fraction
    """Seconds of the last good frame since the first; -1 where there is none."""
    until: Fraction | None
    """Seconds of the next good frame; None where the file has no more."""
    reason: str

    def shifted(self, start: Fraction) -> "Damage":
        """In the container's presentation times, where the first frame is shown at `start`."""
        after = self.after if self.after < 0 else self.after + start
        return self._replace(after=after, until=None if self.until is None else self.until + start)


class Frame(NamedTuple):
    """One decoded frame."""

    stamp: Stamp
    timestamp_s: float
    """Its presentation time, as the container says it."""
    picture: av.VideoFrame

    def small(self) -> NDArray[np.uint8]:
        """uint8 [SMALL, SMALL, 3], by which frames are compared."""
        small = self.picture.reformat(SMALL, SMALL, "rgb24", interpolation="AREA")
        return np.asarray(small.to_ndarray(), np.uint8)

    def upright(self) -> Image.Image:
        """As RGB, turned as the file says that it is to be shown."""
        return self._turned(Image.fromarray(self.picture.to_ndarray(format="rgb24")))

    def reduced(self, size: int) -> Image.Image:
        """As `upright`, by a whole factor smaller where that leaves `size` pixels both ways.

        PaliGemma's video models were trained on frames resized without antialiasing: they forgive
        the few grey levels by which this differs from reducing the whole frame at once.
        """
        picture = self.picture
        factor = min(picture.width, picture.height) // size
        if factor < 2:
            return self.upright()
        width, height = picture.width // factor, picture.height // factor
        small = picture.reformat(width, height, "rgb24", interpolation="AREA")
        return self._turned(Image.fromarray(small.to_ndarray()))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.picture.width, self.picture.height
        return (height, width) if round(self.picture.rotation) % 180 else (width, height)

    def _turned(self, image: Image.Image) -> Image.Image:
        turn = _TURNS.get(round(self.picture.rotation) % 360)
        return image if turn is None else image.transpose(turn)


class _Table(NamedTuple):
    """What a container says of every frame in decoding order; empty where it does not."""

    times: list[int]
    """When it is decoded."""
    positions: list[int]
    """Its first byte."""
    ends: list[int]
    """The first byte after it."""
    before: list[int]
    """How many frames are presented before it, as far as the order of decoding tells."""
    keys: list[int]
    """Which of the frames are coded by themselves."""


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
        self._container, self._stream, self._file = container, stream, file
        self._size, self._announced = size, announced
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(max_pixels)}
        self._base: Fraction = stream.time_base or Fraction(1, 1000)
        self._start = stream.start_time
        self.start = (self._start or 0) * self._base
        """Seconds at which the first frame is shown."""
        self._format: str = container.format.name
        self._avi = self._format == "avi"
        # It has no presentation times: of reordered frames it says only that there are so many.
        self._counted = self._avi and stream.codec_context.has_b_frames
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        self.damages: list[Damage] = []
        """What `frames` has come over so far."""

    @cached_property
    def _table(self) -> "_Table":
        stream = self._stream
        table = _Table([], [], [], [], [])
        if self._container.format.name.startswith(_TABLED) and self._start is not None:
            entries, before = stream.index_entries, 0
            for entry in entries if stream.frames and len(entries) >= stream.frames else ():
                table.times.append(entry.timestamp)
                table.positions.append(entry.pos)
                table.before.append(before)
                table.ends.append(entry.pos + entry.size)
                if entry.is_keyframe:
                    table.keys.append(len(table.before) - 1)
                before += not entry.is_discard
        return table

    @cached_property
    def _whole(self) -> int:
        """How many entries of the table lie within the file as it is."""
        ends, size = self._table.ends, self._size
        if size is None or not ends or max(ends) <= size:
            return len(ends)
        return next(n for n, end in enumerate(ends) if end > size)

    @property
    def tabled(self) -> bool:
        """Whether frames can be counted without reading those before."""
        return bool(self._table.times)

    @property
    def frame_count(self) -> int:
        """Of the table."""
        return self._table.before[-1] + 1

    @property
    def frame_s(self) -> Fraction:
        """Seconds from frame to frame on average, by the table."""
        return self.duration / self.frame_count

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame to the end of the last, by the table."""
        return self._span(self._table.times)

    @property
    def breaks_off(self) -> Fraction | None:
        """Seconds at which a tabled file lacks its rest; None if it is whole."""
        times = self._table.times
        if self._whole == len(times):
            return None
        return (times[self._whole] - times[0]) * self._base

    def frames(
        self, target: Callable[[], Target], *, only_keys: bool = False
    ) -> Iterator[Frame | None]:
        """Decodes the frames in order; damaged ones are left out and told by `damages`.

        Args:
            target: asked before each frame; what lies before it may be left out.
            only_keys: decode no others.

        Yields:
            Frames; None now and then while frames are left out.
        """
        if only_keys:
            self._stream.codec_context.skip_frame = "NONKEY"
        last = -1  # index of the last frame that was decoded whole
        good = Fraction(-1)
        trouble: str | None = None
        wanted = target()
        floor = self._floor(wanted)
        jump = self._jump(wanted, last)
        goal = wanted if jump else None  # of a jump, until it is seen where that led
        while True:
            for found in self._run(jump):
                if isinstance(found, str):
                    trouble = trouble or found
                    continue
                index, picture = found
                if index <= last:
                    continue
                if not trouble and not goal and _is_before(picture, floor):
                    last = index
                    if index % _SIGN_EVERY == 0:
                        yield None
                    continue
                frame = self._frame(index, picture)
                if goal and _is_beyond(frame.stamp, goal):  # the jump went too far
                    jump, goal = self._start, None
                    break
                goal = None
                if trouble:
                    if not frame.stamp.key:
                        continue  # it was made from what is missing
                    self.damages.append(Damage(good, frame.stamp.time, trouble))
                    trouble = None
                last, good = index, frame.stamp.time
                yield frame
                wanted = target()
                floor = self._floor(wanted)
                if jump := self._jump(wanted, last):
                    goal = wanted
                    break
            else:
                if self._whole < len(self._table.times):
                    trouble = f"the file breaks off; its table has {self.frame_count} frames"
                if not trouble and not only_keys and last < 0 and not self.tabled:
                    trouble = "it has no frames"
                if trouble:
                    self.damages.append(Damage(good, None, trouble))
                return

    def measure(self) -> Fraction:
        """Seconds of the video by its frames' times, for which the whole file is read."""
        if self.tabled:
            return self.duration
        packets = (packet for packet in self._packets() if isinstance(packet, av.Packet))
        times = [packet.pts for packet in packets if packet.pts is not None]
        return self._span(times)

    def _span(self, times: list[int]) -> Fraction:
        """Seconds that frames are shown, the last as long as the others on average."""
        if len(times) < 2:
            return len(times) / (self._stream.average_rate or Fraction(25))
        span = Fraction(max(times) - min(times))
        return (span + span / (len(times) - 1)) * self._base

    def _jump(self, target: Target, last: int) -> int | None:
        """The presentation time to jump to, if that leaves out frames worth a jump."""
        table = self._table
        if not table.times:
            return None
        delay = max(0, self._start - table.times[0])  # from decoding to presentation
        if target.time is not None:
            wanted = self._start + int(target.time // self._base)
            entry = bisect_left(table.times, wanted - delay + 1) - 1
        elif target.frame is not None:
            entry = bisect_left(table.before, max(1, target.frame - _REORDERED)) - 1
            wanted = table.times[max(entry, 0)] + delay
        else:
            return None
        key = bisect_right(table.keys, entry) - 1
        if key <= 0 or table.before[table.keys[key]] <= last + _WORTH_A_JUMP:
            return None
        return int(wanted)

    def _floor(self, target: Target) -> int | None:
        """The presentation time before which frames need not even be looked at."""
        if target.time is None or self._start is None or self._avi:
            return None
        return int(self._start + math.ceil(target.time / self._base))

    def _frame(self, index: int, picture: av.VideoFrame) -> Frame:
        if picture.pts is None or self._counted:
            time = absolute = index / (self._stream.average_rate or Fraction(25))
        else:
            # AVI's times count the chunks that could be read.
            absolute = (index if self._indexed else picture.pts) * self._base
            time = max(Fraction(0), absolute - self.start)
        return Frame(Stamp(index, time, bool(picture.key_frame)), float(absolute), picture)

    def _run(self, jump: int | None) -> Iterator[tuple[int, av.VideoFrame] | str]:
        """The frames from a place on with their indices, and in between what is wrong where one is
        missing."""
        codec = self._stream.codec_context
        if jump is not None:
            self._container.seek(jump, stream=self._stream, backward=True)
        waiting: list[int] = []  # the times of frames that are read and not yet given, in order
        before = counted = 0  # frames presented before those; frames decoded so far
        first: int | None = None  # frames before this time lack what they were made from
        anew = False  # whether frames were lost that nobody has counted
        for packet in self._packets():
            if isinstance(packet, str):
                yield packet
                continue
            if packet is None:
                codec.flush_buffers()
                anew = not self.tabled
                continue
            if packet.pts is not None and not packet.is_discard:
                if first is None:
                    first = packet.pts
                    if jump is not None:
                        before = self._by_position[packet.pos]
                if anew:  # unknown is how many frames were lost, but not how long they took
                    before = max(before, self._number(packet) - len(waiting))
                    anew = False
                insort(waiting, packet.pts)
            try:
                pictures = codec.decode(None if _is_last(packet) else packet)
            except FFmpegError as error:
                yield _plain(error)
                continue
            for picture in pictures:
                if picture.pts is None or self._counted:
                    index, counted = counted, counted + 1
                else:
                    place = bisect_left(waiting, picture.pts)
                    before += place
                    del waiting[:place]
                    if jump is not None and first is not None and picture.pts < first:
                        continue
                    index = before
                if picture.is_corrupt:
                    yield "a damaged frame"
                    continue
                yield index, picture

    @cached_property
    def _by_position(self) -> dict[int, int]:
        return dict(zip(self._table.positions, self._table.before, strict=True))

    @cached_property
    def _indexed(self) -> dict[int, int]:
        """The numbers of an AVI's frames by where they lie, if it has an index of all."""
        entries = self._stream.index_entries
        if not self._avi or self._counted or len(entries) < max(1, self._stream.frames):
            return {}
        return {entry.pos + _CHUNK_HEADER: n for n, entry in enumerate(entries)}

    def _number(self, packet: Any) -> int:
        """Of a packet's frame after others were lost: known in an AVI, elsewhere by its time."""
        if self._indexed:
            return self._indexed.get(packet.pos, 0)
        rate = self._stream.average_rate or 0
        since: Fraction = (packet.pts - (self._start or 0)) * self._base
        return round(since * rate)

    def _packets(self) -> Iterator[Any]:
        """The stream's packets; in between, what is wrong, and None where decoding begins anew."""
        end: int | None = None  # of the last packet in the file
        silent = SilentDamage(self._format)
        last: int | None = None  # of the packets that an AVI's index has
        matroska = self._container.format.name.startswith("matroska")
        # An alpha channel lies between the packets, and is not counted with them.
        closed = matroska and "alpha_mode" not in self._stream.metadata
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except FFmpegError as error:
                yield _plain(error)
                break
            if packet.size and packet.pos is not None:
                if closed and end is not None and packet.pos - end > _GAP:
                    yield from self._drained("a damaged part of the file")
                end = packet.pos + packet.size
            if (number := self._indexed.get(packet.pos)) is not None:
                if last is not None and number > last + 1:
                    yield from self._drained("a damaged part of the file")
                last = number
            if packet.stream.index != self._stream.index:
                continue
            if silent.lies_before(packet):
                yield from self._drained("a damaged part of the file")
            if _is_nothing(packet):
                continue
            if packet.is_corrupt or silent.lies_in(packet):
                yield from self._drained("a damaged part of the file")
            elif not _is_last(packet):
                yield packet
        if self._size is not None and end is not None and not self.tabled:
            whole = max(self._announced or 0, self._size)
            cut = whole > self._size or (matroska and whole - end > max(_TAIL, whole // 10))
            if self._format.startswith(_TABLED):
                cut = is_cut_box(self._file, end, self._size)
            elif self._format == "ogg":
                cut = is_cut_ogg(self._file, self._size)
            if cut:
                yield from self._drained("the file breaks off or is damaged up to its end")
        yield av.Packet()

    def _drained(self, trouble: str) -> Iterator[Any]:
        """Ends decoding, says what is wrong, and has it begin anew."""
        yield av.Packet()
        yield trouble
        yield None


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
        raise VideoError(f"not a video, or without its header: {_plain(error)}") from None
    with container:
        yield Video(container, buffered, size, announced, max_pixels)


def _is_beyond(stamp: Stamp, target: Target) -> bool:
    if target.time is not None:
        return stamp.time > target.time
    return target.frame is not None and stamp.frame > target.frame


def _is_before(picture: av.VideoFrame, floor: int | None) -> bool:
    return floor is not None and picture.pts is not None and picture.pts < floor


def _is_last(packet: Any) -> bool:
    """Whether it is what FFmpeg ends a stream with."""
    return packet.size == 0 and packet.dts is None and packet.pts is None


def _is_nothing(packet: Any) -> bool:
    """Whether it says that the last frame is shown for longer, as empty chunks of AVI do."""
    return packet.size == 0 and not _is_last(packet)


def _plain(error: FFmpegError) -> str:
    return error.strerror or type(error).__name__
