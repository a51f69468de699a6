"""A video file, opened: its table of frames, and its frames, decoded from where they matter.

PyAV (FFmpeg) demuxes and decodes. Positions are exact: a frame's index counts the frames that are
presented before it, whether or not the file was read from the start.
"""

import io
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image

from paliflow.jobs.video.lengths import HEAD, announced_size
from paliflow.jobs.video.sampling import Stamp, Target

# fmt: off
VIDEO_SUFFIXES = (
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".ts", ".webm", ".webp", ".wmv",
)
# fmt: on
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,webp_anim,h264,hevc,ivf,ogg"
)
"""Of FFmpeg; playlists, which name further files and hosts, are not among them."""
_TABLED = "mov,mp4"
"""The demuxer that knows where every frame lies before it reads one."""
SMALL = 32
"""Pixels of the side of what frames are shrunk to for comparison."""
_WORTH_A_JUMP = 8
"""Frames that have to lie between for a jump to be cheaper than decoding them."""
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
        image = Image.fromarray(self.picture.to_ndarray(format="rgb24"))
        turn = _TURNS.get(round(self.picture.rotation) % 360)
        return image if turn is None else image.transpose(turn)


class Video:
    """An open file. Use `open_video`."""

    def __init__(self, container: Any, size: int | None, announced: int | None) -> None:
        """
        Raises:
            VideoError: it has no video stream, or one that cannot be decoded.
        """
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            raise VideoError("no video stream")
        if stream.codec_context is None:
            raise VideoError("its codec is unknown")
        self._container, self._stream = container, stream
        self._size, self._announced = size, announced
        stream.thread_type = "AUTO"
        self._base: Fraction = stream.time_base or Fraction(1, 1000)
        self._start = stream.start_time
        self.start = (self._start or 0) * self._base
        """Seconds at which the first frame is shown."""
        self._avi = container.format.name == "avi"
        # It has no presentation times: of reordered frames it says only that there are so many.
        self._counted = self._avi and stream.codec_context.has_b_frames
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        self.damages: list[Damage] = []
        """What `frames` has come over so far."""

    @cached_property
    def _table(self) -> list[tuple[int, int, bool, int]]:
        """Of every frame in decoding order: decoding time, position, key, frames presented before;
        empty where the container has no such table."""
        stream, table = self._stream, []
        if self._container.format.name.startswith(_TABLED) and self._start is not None:
            entries, before = stream.index_entries, 0
            for entry in entries if stream.frames and len(entries) >= stream.frames else ():
                table.append((entry.timestamp, entry.pos, entry.is_keyframe, before))
                before += not entry.is_discard
        return table

    @cached_property
    def _ends(self) -> int:
        """How many entries of the table lie within the file as it is."""
        if self._size is None:
            return len(self._table)
        entries = self._stream.index_entries
        return next(
            (n for n in range(len(self._table)) if entries[n].pos + entries[n].size > self._size),
            len(self._table),
        )

    @property
    def tabled(self) -> bool:
        """Whether frames can be counted without reading those before."""
        return bool(self._table)

    @property
    def frame_count(self) -> int:
        """Of the table."""
        return self._table[-1][3] + 1

    @property
    def frame_s(self) -> Fraction:
        """Seconds from frame to frame on average, by the table."""
        return self.duration / self.frame_count

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame to the end of the last, by the table."""
        times = [entry[0] for entry in self._table]
        last = (times[-1] - times[0]) / max(len(times) - 1, 1)
        return (times[-1] - times[0] + Fraction(last)) * self._base

    @property
    def breaks_off(self) -> Fraction | None:
        """Seconds at which a tabled file lacks its rest; None if it is whole."""
        if self._ends == len(self._table):
            return None
        return (self._table[self._ends][0] - self._table[0][0]) * self._base

    def frames(self, target: Callable[[], Target], *, only_keys: bool = False) -> Iterator[Frame]:
        """Decodes the frames in order; damaged ones are left out and told by `damages`.

        Args:
            target: asked before each frame; what lies before it may be left out.
            only_keys: decode no others.
        """
        if only_keys:
            self._stream.codec_context.skip_frame = "NONKEY"
        last = -1  # index of the last frame given
        good = Fraction(-1)
        trouble: str | None = None
        beginning = target()
        jump = self._jump(beginning, last)
        goal = beginning if jump else None  # of a jump, until it is seen where that led
        while True:
            for frame in self._run(jump):
                if isinstance(frame, str):
                    trouble = trouble or frame
                    continue
                if frame.stamp.frame <= last:
                    continue
                if goal and _is_beyond(frame.stamp, goal):  # the jump went too far
                    jump, goal = self._start, None
                    break
                goal = None
                if trouble:
                    if not frame.stamp.key:
                        continue  # it was made from what is missing
                    self.damages.append(Damage(good, frame.stamp.time, trouble))
                    trouble = None
                last, good = frame.stamp.frame, frame.stamp.time
                yield frame
                following = target()
                if jump := self._jump(following, last):
                    goal = following
                    break
            else:
                if self._ends < len(self._table):
                    trouble = f"the file breaks off; its table has {self.frame_count} frames"
                if not trouble and not only_keys and last < 0 and not self._table:
                    trouble = "it has no frames"
                if trouble:
                    self.damages.append(Damage(good, None, trouble))
                return

    def measure(self) -> Fraction:
        """Seconds of the video by its frames' times, for which the whole file is read."""
        if self._table:
            return self.duration
        packets = (packet for packet in self._packets() if isinstance(packet, av.Packet))
        times = [packet.pts for packet in packets if packet.pts is not None]
        if not times:
            return Fraction(0)
        span = Fraction(max(times) - min(times))
        return (span + span / max(len(times) - 1, 1)) * self._base

    def _jump(self, target: Target, last: int) -> int | None:
        """The presentation time to jump to, if that leaves out frames worth a jump."""
        if not self._table:
            return None
        if target.time is not None:
            wanted = self._start + int(target.time // self._base)
            delay = max(0, self._start - self._table[0][0])
            entry = bisect_left(self._table, wanted - delay + 1, key=lambda e: e[0]) - 1
        elif target.frame is not None:
            within = max(1, target.frame - _REORDERED)
            entry = bisect_left(self._table, within, key=lambda e: e[3]) - 1
            delay = max(0, self._start - self._table[0][0])
            wanted = self._table[max(entry, 0)][0] + delay
        else:
            return None
        while entry > 0 and not self._table[entry][2]:
            entry -= 1
        if entry <= 0 or self._table[entry][3] <= last + _WORTH_A_JUMP:
            return None
        return int(wanted)

    def _run(self, jump: int | None) -> Iterator[Frame | str]:
        """The frames from a place on, and in between what is wrong where one is missing."""
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
                anew = not self._table
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
                    time = absolute = index / (self._stream.average_rate or Fraction(25))
                else:
                    place = bisect_left(waiting, picture.pts)
                    before += place
                    del waiting[:place]
                    if jump is not None and first is not None and picture.pts < first:
                        continue
                    index, absolute = before, picture.pts * self._base
                    if self._indexed:  # AVI's times count the chunks that could be read
                        absolute = index * self._base
                    time = max(Fraction(0), absolute - (self._start or 0) * self._base)
                if picture.is_corrupt:
                    yield "a damaged frame"
                    continue
                yield Frame(Stamp(index, time, bool(picture.key_frame)), float(absolute), picture)

    @cached_property
    def _by_position(self) -> dict[int, int]:
        return {position: before for _, position, _, before in self._table}

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
            if packet.stream.index != self._stream.index or _is_nothing(packet):
                continue
            if packet.is_corrupt:
                yield from self._drained("a damaged part of the file")
            elif not _is_last(packet):
                yield packet
        if self._size is not None and end is not None and not self._table:
            whole = max(self._announced or 0, self._size)
            if whole > self._size or (matroska and whole - end > max(_TAIL, whole // 10)):
                yield from self._drained("the file breaks off or is damaged up to its end")
        yield av.Packet()

    def _drained(self, trouble: str) -> Iterator[Any]:
        """Ends decoding, says what is wrong, and has it begin anew."""
        yield av.Packet()
        yield trouble
        yield None


@contextmanager
def open_video(source: str | BinaryIO, size: int | None) -> Iterator[Video]:
    """Opens a file; it is read as far as needed.

    Args:
        source: a local path, or an open file that can seek.
        size: of the file in bytes, by which it is seen whether its end is missing.

    Raises:
        VideoError: it is no video.
    """
    if isinstance(source, str):
        with Path(source).open("rb") as local:
            head = local.read(HEAD)
    else:
        head = source.read(HEAD)
        source.seek(0)
    announced = announced_size(head)
    file: Any = source if isinstance(source, str) else io.BufferedReader(source, 2**20)
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    try:
        container = av.open(file, options=options, metadata_errors="replace")
    except FFmpegError as error:
        raise VideoError(f"not a video, or without its header: {_plain(error)}") from None
    with container:
        yield Video(container, size, announced)


def _is_beyond(stamp: Stamp, target: Target) -> bool:
    if target.time is not None:
        return stamp.time > target.time
    return target.frame is not None and stamp.frame > target.frame


def _is_last(packet: Any) -> bool:
    """Whether it is what FFmpeg ends a stream with."""
    return packet.size == 0 and packet.dts is None and packet.pts is None


def _is_nothing(packet: Any) -> bool:
    """Whether it says that the last frame is shown for longer, as empty chunks of AVI do."""
    return packet.size == 0 and not _is_last(packet)


def _plain(error: FFmpegError) -> str:
    return error.strerror or type(error).__name__
