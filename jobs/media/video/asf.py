"""Which pictures of an ASF (WMV) are missing: its packets number them, and FFmpeg does not look.

Advanced Systems Format, 5.2: a file is a row of packets of one size, each of which holds pieces of
numbered objects of its streams, that is of coded frames.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_DATA_HEADER = 50
_HEAD = 2**16
_SMALLEST = 100
"""Bytes of a packet, so that a file is not gone through byte by byte."""
_WIDTHS = (0, 1, 2, 4)
"""Bytes of a field, by the two bits that say it."""


class _Piece(NamedTuple):
    stream: int
    number: int
    offset: int
    size: int
    whole: int
    """Bytes of the object."""


class AsfObjects:
    """Follows a stream's objects from packet to packet."""

    def __init__(self, file: BinaryIO, stream: int) -> None:
        """
        Args:
            file: an ASF; it stands after each call where it stood before.
            stream: the number that the file gives the stream.
        """
        self._file, self._stream = file, stream
        stood = file.tell()
        file.seek(0)
        head = file.read(_HEAD)
        file.seek(stood)
        place = head.find(_PROPERTIES)
        known = head.startswith(_HEADER) and 0 <= place <= len(head) - 104
        size = int.from_bytes(head[place + 96 : place + 100], "little") if known else 0
        self._size = size if size >= _SMALLEST else 0
        data = int.from_bytes(head[16:24], "little")
        self._next = data + _DATA_HEADER
        self._stop = data + int.from_bytes(head[data + 16 : data + 24], "little")
        self._last: _Piece | None = None
        self._got = 0
        self._lacking = False

    def lacks_before(self, position: int) -> bool:
        """Whether some is missing up to the packet there, since the last one that was asked for."""
        stood, missing = self._file.tell(), False
        while self._size and self._next <= position:
            self._file.seek(self._next)
            packet = self._file.read(self._size)
            self._next += self._size
            try:
                for piece in _pieces(packet):
                    missing |= piece.stream == self._stream and not self._follows(piece)
            except IndexError:
                missing, self._last = True, None  # it is no packet
        self._file.seek(stood)
        self._lacking |= missing
        return missing

    def breaks_off(self, size: int) -> bool:
        """Whether more was to follow the packets that were asked for.

        Args:
            size: bytes of the file; a file that lacks some in its middle is shorter as well.
        """
        if self._lacking or not self._size:
            return False  # where its packets end is not known any more
        missing = self.lacks_before(min(self._stop, size) - 1)
        return missing or self._stop > size or (self._next >= self._stop and self._open)

    @property
    def _open(self) -> bool:
        """Whether the last object lacks its end."""
        return self._last is not None and self._got < self._last.whole

    def _follows(self, piece: _Piece) -> bool:
        last, whole = self._last, not self._open
        begins = piece.offset == 0
        follows = (
            last is None
            or (not begins and piece.number == last.number and piece.offset == self._got)
            or (begins and whole and piece.number == _following(last.number))
        )
        self._last, self._got = piece, piece.offset + piece.size
        return follows


def _following(number: int) -> int:
    return number + 1 & (0xFF if number <= 0xFF else 0xFFFFFFFF)


def _pieces(packet: bytes) -> Iterator[_Piece]:
    """
    Raises:
        IndexError: it is no packet.
    """
    at = 0

    def take(width: int) -> int:
        nonlocal at
        at += width
        if at > len(packet):
            raise IndexError
        return int.from_bytes(packet[at - width : at], "little")

    first = take(1)
    if first & 0x80:
        take(first & 15)
        first = take(1)
    fields = take(1)
    if fields >> 6 != 1:
        raise IndexError
    length = take(_WIDTHS[first >> 5 & 3])
    take(_WIDTHS[first >> 1 & 3])
    padding = take(_WIDTHS[first >> 3 & 3])
    take(6)
    end = min(length or len(packet), len(packet)) - padding
    count, width = 1, 0
    if first & 1:
        flags = take(1)
        count, width = flags & 63, _WIDTHS[flags >> 6]
    for _ in range(count):
        stream = take(1) & 127
        number = take(_WIDTHS[fields >> 4 & 3])
        offset = take(_WIDTHS[fields >> 2 & 3])
        about = take(_WIDTHS[fields & 3])
        whole = int.from_bytes(packet[at : at + 4], "little")
        take(about)
        size = take(width) if width else end - at
        if size < 0 or at + size > len(packet):
            raise IndexError
        if about >= 8:  # else many small objects lie in a piece, as those of sound do
            yield _Piece(stream, number, offset, size, whole)
        take(size)
