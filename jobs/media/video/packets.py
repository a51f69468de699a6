"""The packets of a video stream, on one clock that runs on, and what is damaged in between."""

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import av
from av.error import FFmpegError

from paliflow.jobs.media.video.damage import VideoError
from paliflow.jobs.media.video.lengths import is_filled
from paliflow.jobs.media.video.table import Table
from paliflow.jobs.media.video.wholeness import SilentDamage

_GAP = 512
"""Bytes between two packets of Matroska, whose own headers are some tens, that may be damage."""
_TAIL = 4096
"""Bytes after the last one that may be its index, if they are not a tenth of the file."""
_TRACK_AND_TIME = 4
"""Bytes of a block of Matroska from the place of a packet to its first byte."""
_JOINED = 2
"""Packets that FFmpeg may give between one that it marks for a join and the keyframe after it."""
_FIXED_RATE = ("mpeg1video", "mpeg2video")
_FAR = 32
"""Frames by which times go back only where a clock starts again."""
_NO_TIMES = av.format.Flags.no_timestamps.value
"""Of raw streams, whose times FFmpeg makes up: those of MPEG-2 begin one frame late."""
LONG = Fraction(7, 4)
"""Frames from one to the next between which none is missing: telecine has one and a half."""
DAMAGED = "a damaged part of the file"


class Coded(NamedTuple):
    """One packet."""

    packet: Any
    ticks: int | None
    """When its frame is shown, an AVI's: decoded; None where the file does not say."""
    number: int | None
    """Of its frame in decoding order, where the container's table or index says it."""
    key: bool
    """Whether its frame is coded by itself."""
    decoded: int | None
    """When its frame is decoded, before which no later packet's frame is shown; None where the
    file does not say."""


class Break(NamedTuple):
    """A place at which decoding ends and begins anew."""

    reason: str
    lost: bool = True
    """Whether packets are missing; else the clock was mended."""


class Packets:
    """Reads packets from where the container stands."""

    def __init__(
        self,
        container: Any,
        stream: Any,
        table: Table,
        index: dict[int, tuple[int, int]],
        file: BinaryIO,
        size: int,
        announced: int | None,
    ) -> None:
        """
        Args:
            container: an open one.
            stream: of it.
            table: of the stream, or empty.
            index: an AVI's, or empty.
            file: that the container reads.
            size: of it in bytes.
            announced: by its header; None where that says nothing.
        """
        self._container, self._stream = container, stream
        self._table, self._index = table, index
        self._file, self._size, self._announced = file, size, announced
        rate, base = stream.average_rate or 25, stream.time_base
        self._step = max(1, round(1 / (rate * base))) if base else 1
        """Ticks from frame to frame on average."""
        self._avi = container.format.name == "avi"
        self._untimed = bool(container.format.flags & _NO_TIMES)
        self._longest = math.floor(self._step * LONG)
        """Ticks from one packet to the next that mean nothing, as there were such before."""
        codec = stream.codec_context.name
        # Only a packet's start code says where it begins, and nothing counts them. The rate is
        # fixed, and recordings are joined and paused at keyframes.
        self._uncounted = container.format.name == "mpeg" and codec in _FIXED_RATE

    def __iter__(self) -> Iterator[Coded | Break]:
        """The packets that have a frame, as many as can be had.

        Raises:
            VideoError: they are encrypted.
        """
        shift = 0
        latest: int | None = None  # time that was seen
        decoded: int | None = None  # when the last one is
        for packet in self._joined():
            if isinstance(packet, Break):
                yield packet
                continue
            number, ticks = self._place(packet)
            if ticks is None or packet.is_discard:
                yield Coded(packet, ticks, number, packet.is_keyframe, None)
                continue
            ticks += shift
            if latest is not None and not self._table.times:
                back = latest - ticks
                if (back > 0 and packet.is_keyframe) or (
                    back > _FAR * self._step
                    and decoded is not None
                    and packet.dts is not None
                    and packet.dts < decoded
                ):
                    yield Break("the clock starts again", lost=False)
                    shift += back + self._step
                    ticks += back + self._step
            latest = ticks if latest is None else max(latest, ticks)
            decoded = packet.dts
            when = None if decoded is None else decoded + shift
            yield Coded(packet, ticks, number, packet.is_keyframe, when)

    def _place(self, packet: Any) -> tuple[int | None, int | None]:
        """The number of a packet's frame and its time, as far as they are known."""
        if self._avi:
            return self._index.get(packet.pos, (None, packet.dts))
        ticks = None if self._untimed else packet.pts
        return self._table.places.get((packet.pos, packet.dts)), ticks

    def _joined(self) -> Iterator[Any]:
        """Packets; a mark of the demuxer that something is missing counts unless files were joined
        there, which it takes for damage as well."""
        held: deque[Any] = deque()  # a marked packet and those after it
        last: int | None = None  # when the last one before is decoded
        usual: int | None = None  # ticks from the first packet to the second
        for packet in self._read():
            if isinstance(packet, Break):
                yield from self._settled(held)
                yield packet
                continue
            if held or packet.is_corrupt:
                held.append(packet)
                if packet.is_keyframe and len(held) > 1:
                    if self._follows(packet, held[-2]):
                        yield from held
                        held.clear()
                    else:
                        yield from self._settled(held)
                elif len(held) > 1 + _JOINED:
                    yield from self._settled(held)
                last = None
                continue
            if last is not None and packet.dts is not None:
                gap = packet.dts - last
                if not self._uncounted:
                    self._longest = max(self._longest, gap)
                elif usual is None:  # some files say the rate of fields
                    usual = gap
                    self._longest = max(self._longest, math.floor(gap * LONG))
                elif gap > self._longest and not packet.is_keyframe:
                    yield Break(DAMAGED)
            last = packet.dts
            yield packet
        yield from self._settled(held)

    def _follows(self, packet: Any, before: Any) -> bool:
        """Whether nothing is missing between two packets, by their times."""
        if packet.dts is None or before.dts is None:
            return False
        return bool(packet.dts - before.dts <= self._longest)

    def _settled(self, held: deque[Any]) -> Iterator[Any]:
        """Packets after a mark that does mean damage."""
        while held:
            packet = held.popleft()
            if packet.is_corrupt:
                yield Break(DAMAGED)
            else:
                yield packet

    def _read(self) -> Iterator[Any]:
        """The stream's packets that have bytes, and the damage that is seen between them."""
        end: int | None = None  # of the last packet in the file
        last: int | None = None  # of the packets that an AVI's index has
        matroska = self._container.format.name.startswith("matroska")
        # An alpha channel lies between the packets, and is not counted with them.
        closed = matroska and "alpha_mode" not in self._stream.metadata
        silent = SilentDamage(self._container.format.name, self._stream, self._file, self._size)
        packets = iter(silent.timed(self._container.demux()))
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except FFmpegError as error:
                yield Break(plain(error))
                break
            if packet.size and packet.pos is not None:
                if closed and end is not None and packet.pos - end > _GAP:  # noqa: SIM102
                    if not is_filled(self._file, end + _TRACK_AND_TIME, packet.pos):
                        yield Break(DAMAGED)
                end = packet.pos + packet.size
            if (place := self._index.get(packet.pos)) is not None:
                if last is not None and place[0] > last + 1:
                    yield Break(DAMAGED)
                last = place[0]
            if packet.stream.index != self._stream.index:
                continue
            if silent.lies_before(packet):
                yield Break(DAMAGED)
            # One without bytes ends the stream or, in AVI, has the last frame shown for longer.
            if packet.size:
                if silent.lies_in(packet):
                    yield Break(DAMAGED)
                    continue
                if packet.has_sidedata("encryption_info"):
                    raise VideoError("its frames are encrypted")
                yield packet
        if end is not None and not self._table.times:
            whole = max(self._announced or 0, self._size)
            tail = matroska and whole - end > max(_TAIL, whole // 10)
            if (
                whole > self._size
                or (tail and not is_filled(self._file, end + _TRACK_AND_TIME, whole))
                or silent.lies_behind(end)
            ):
                yield Break("the file breaks off or is damaged up to its end")


def plain(error: FFmpegError) -> str:
    """What FFmpeg says, without where it was said."""
    return error.strerror or type(error).__name__
