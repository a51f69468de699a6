"""Packets to pictures: each with its place in the video, whatever was lost before it."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from fractions import Fraction
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any, NamedTuple

import av
from av.error import FFmpegError

from paliflow.jobs.media.video.packets import LONG, Break, Coded, plain
from paliflow.jobs.media.video.table import REORDERED, Table

_REMEMBERED = 256
"""Packets whose pictures may still come."""
_BEHIND = 2 * REORDERED
"""Packets after a keyframe among which those are that are shown before it, two to a frame."""
_CROWD = 4096
"""Packets without a picture; more are not worth their room."""
_SHOWN = 0x10
"""Bit of the first byte of a VP8 frame."""


class Shown(NamedTuple):
    """A picture and where it belongs."""

    frame: int
    """Its index: how many frames are presented before it."""
    ticks: int | Fraction
    """When it is shown."""
    key: bool
    """Whether it is coded by itself."""
    picture: av.VideoFrame


class _Key(NamedTuple):
    """A keyframe that was decoded by itself, until all is read that is shown before it."""

    mark: tuple[int, int]
    """Its time and its packet's number."""
    coded: Coded
    picture: av.VideoFrame


class Pictures:
    """Decodes packets. A decoder is given their numbers as times, and so says what each picture
    was made from; when that is shown, the file says, or the rate.

    Pictures are counted as they come. Only where some may be missing it matters how many packets
    are to be shown earlier and have no picture: a second field or a hidden frame never has one.
    """

    def __init__(self, stream: Any, table: Table, *, dealt: bool, anew: bool, broken: bool) -> None:
        """
        Args:
            stream: whose packets come.
            table: of the stream, or empty.
            dealt: whether times are those of decoding, which pictures get one by one in order.
            anew: whether the first packet is another than the file's.
            broken: whether the video goes on where the packets end.
        """
        self._codec = stream.codec_context
        self._start = stream.start_time or 0
        rate, base = stream.average_rate or Fraction(25), stream.time_base or Fraction(1, 1000)
        self._step = 1 / (rate * base)
        self._longest = self._step * LONG
        """Ticks from one picture to the next between which none is missing."""
        self._table, self._dealt = table, dealt
        self._sent: dict[int, Coded] = {}  # by number in the order of sending
        self._count = 0  # of them
        self._until: int | None = None  # when the last of them is decoded
        self._waiting: list[tuple[int, int]] = []  # times and numbers of those not shown, in order
        self._deep = 1  # by how many places, at most, a frame comes earlier than it was decoded
        self._times: list[int] = []  # that are to be dealt out, a heap
        self._next = 0  # index of the next picture
        self._last: tuple[int, int] | None = None  # index and time of one that has a time
        self._anew = anew  # whether all pictures are useless until a keyframe's
        self._adrift = True  # whether pictures may be missing before the next
        self._lost = False  # whether packets may be missing before it
        self._first: tuple[int, int] | None = None  # time and number of that keyframe
        self._broken = broken
        self._ending = False  # whether what comes now is the last before lost packets
        self.estimated = False
        """Whether indices may be wrong, for nobody can know how many frames are missing."""

    def run(self, coded: Iterable[Coded | Break]) -> Iterator[Shown | str | Break]:
        """All pictures in their order, and in between what is wrong where some are missing."""
        for each in coded:
            if isinstance(each, Break):
                self._ending = each.lost
                yield from self._decoded(None)
                self._ending = False
                self._codec.flush_buffers()
                self._anew = self._adrift = True
                self._first = None
                self._lost = self._lost or each.lost
                yield each
            else:
                self._note(each)
                yield from self._decoded(each.packet)
        self._ending = self._broken
        yield from self._decoded(None)

    def keys(self, coded: Iterable[Coded | Break]) -> Iterator[Shown | str | Break]:
        """The pictures that are coded by themselves, each decoded without any other.

        Decoders that leave out the others leave out some of these as well, or all.
        """
        held: list[_Key] = []
        for each in coded:
            if isinstance(each, Break):
                self._ending = each.lost
                yield from self._all_placed(held)
                held.clear()
                self._ending = False
                self._lost = self._lost or each.lost
                yield each
                continue
            number = self._note(each)
            while held and _all_known(held[0], number, each):
                yield from self._all_placed([held.pop(0)])
            if not each.key or number not in self._sent or each.ticks is None:
                continue
            try:
                pictures = self._codec.decode(each.packet) + self._codec.decode(None)
            except FFmpegError as error:
                yield plain(error)
                pictures = []
            self._codec.flush_buffers()
            if pictures and pictures[0].is_corrupt:
                yield "a damaged frame"
            elif pictures:
                held.append(_Key((each.ticks, number), self._sent[number], pictures[0]))
        self._ending = self._broken
        yield from self._all_placed(held)

    def _all_placed(self, keys: Iterable[_Key]) -> Iterator[Shown]:
        for mark, coded, picture in keys:
            if self._ending and self._leaps(mark):
                continue
            if not self._lost:
                self._longest = max(self._longest, self._widest(mark))
            self._seek_place(mark, coded, anew=True)
            del self._waiting[: bisect_left(self._waiting, (mark[0], mark[1] + 1))]
            self._last = self._next, mark[0]
            yield Shown(self._next, mark[0], True, picture)
            self._next += 1

    def _note(self, coded: Coded) -> int:
        """Gives a packet its number and remembers it, if it has a frame to be shown."""
        number, packet = self._count, coded.packet
        self._count += 1
        self._until = coded.decoded
        packet.pts = number
        if packet.is_discard or (self._codec.name == "vp8" and not bytes(packet)[0] & _SHOWN):
            return number
        self._sent[number] = coded._replace(packet=None)
        self._sent.pop(number - _REMEMBERED, None)
        if coded.ticks is not None and self._dealt:
            heappush(self._times, coded.ticks)
        elif coded.ticks is not None:
            insort(self._waiting, (coded.ticks, number))
            if len(self._waiting) > _CROWD:
                self._next += _CROWD // 2
                del self._waiting[: _CROWD // 2]
        return number

    def _decoded(self, packet: Any) -> Iterator[Shown | str]:
        try:
            pictures = self._codec.decode(packet)
        except FFmpegError as error:
            self._adrift = True
            if packet is not None and not self._waiting and not self._dealt:
                self._next += 1  # without times a packet is taken for a frame
                self.estimated = True
            yield plain(error)
            return
        for picture in pictures:
            if (shown := self._shown(picture)) is None:
                continue
            if picture.is_corrupt:
                self._adrift = True
                yield "a damaged frame"
            else:
                yield shown

    def _shown(self, picture: av.VideoFrame) -> Shown | None:
        """A picture in its place; None for one that was made from what is missing, or before which
        frames are missing of which nothing says how many they are."""
        number = picture.pts
        coded = None if number is None else self._sent.pop(number, None)
        key = bool(picture.key_frame or (coded and coded.key))
        if self._anew and not key:
            return None
        if self._dealt and number is not None:
            if self._ending and self._next >= self._count - self._deep:
                return None
            self._deep = max(self._deep, number - self._next)
        if coded is None or number is None or coded.ticks is None or self._dealt:
            ticks = self._counted(coded, key)
        else:
            mark = coded.ticks, number
            if self._first and mark < self._first:
                return None
            if self._ending and self._leaps(mark):
                return None  # frames that are shown before it were to follow
            if self._adrift:
                self._seek_place(mark, coded, anew=self._anew)
                self._first = mark if self._anew else None
            elif self._last:
                self._longest = max(self._longest, coded.ticks - self._last[1])
            del self._waiting[: bisect_left(self._waiting, (coded.ticks, number + 1))]
            ticks = coded.ticks
            self._last = self._next, ticks
        self._anew, self._adrift = False, self._adrift and not key
        index, self._next = self._next, self._next + 1
        return Shown(index, ticks, key, picture)

    def _leaps(self, mark: tuple[int, int]) -> bool:
        """Whether packets seem to be missing between the last picture and one with this mark.

        What comes after a break is not shown before the last packet ahead of that is decoded.
        """
        if self._ending and self._until is not None and mark[0] <= self._until:
            return False
        return self._widest(mark) > self._longest

    def _widest(self, mark: tuple[int, int]) -> int:
        """The longest time from packet to packet between the last picture and one."""
        if self._last is None:
            return 0
        before = (ticks for ticks, _ in self._waiting[: bisect_left(self._waiting, mark)])
        times = [self._last[1], *before, mark[0]]
        return max(later - time for time, later in pairwise(times))

    def _seek_place(self, mark: tuple[int, int], coded: Coded, *, anew: bool) -> None:
        """Sets the index of the next picture, before which some may be missing.

        Args:
            mark: its time and the number of its packet.
            coded: that packet.
            anew: whether it is the first, of which all is known that is shown before it.
        """
        place = bisect_left(self._waiting, mark)
        if anew and coded.number is not None:
            later = sum(each > mark[1] for _, each in self._waiting[:place])
            before = self._table.before[coded.number] if self._table.before else coded.number
            self._next = before + later
        else:
            self._next += place
            if self._lost:
                index, ticks = self._last or (0, self._start)
                self._next = max(self._next, index + round((mark[0] - ticks) / self._step))
                self.estimated = True
        self._lost = False

    def _counted(self, coded: Coded | None, key: bool) -> int | Fraction:
        """The time of the next picture, if its own packet does not say it."""
        if not self._dealt:
            index, ticks = self._last or (0, self._start)
            return ticks + (self._next - index) * self._step
        if self._adrift and key and coded is not None and coded.ticks is not None:
            while self._times and self._times[0] < coded.ticks:
                heappop(self._times)  # of what has no picture
            if self._next and coded.number is not None:
                self._next = max(self._next, coded.number)
                self.estimated = True
            self._lost = False
        return heappop(self._times) if self._times else self._next * self._step


def _all_known(key: _Key, number: int, coded: Coded) -> bool:
    """Whether every packet was read that is shown before a keyframe, when another has come."""
    if coded.decoded is not None and coded.decoded >= key.mark[0]:
        return True
    return number >= key.mark[1] + _BEHIND
