"""Whether the parts of a file are whole, where FFmpeg does not tell: GIF, MP4, Ogg, TS, WMV."""

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from paliflow.jobs.media.video.asf import AsfObjects

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_PAGE = 27 + 255 + 255 * 255
"""Bytes of an Ogg page at most (RFC 3533)."""
_LAST_PAGE = 4
_SYNC = 0x47
_TS_PACKET = 188
_TS_PREFIXES = (0, 4)
"""Bytes before a packet of TS: none, or the time that M2TS puts there."""
_TS_TAIL = 8
"""Packets at the end of a TS by which it is seen where they begin."""
_BOXES = 1000
# fmt: off
_TOP_BOXES = (
    b"moof", b"mdat", b"mfra", b"styp", b"sidx", b"ssix", b"prft", b"emsg", b"moov", b"meta",
    b"free", b"skip", b"uuid",
)
# fmt: on


class SilentDamage:
    """Goes over a stream's packets in order and finds damage that FFmpeg's demuxers pass over."""

    def __init__(self, container: str, stream: Any, file: BinaryIO, size: int) -> None:
        """
        Args:
            container: FFmpeg's name of the demuxer.
            stream: the one whose packets are looked at.
            file: that the packets are read from; it is left where it stands.
            size: of it in bytes.
        """
        self._gif, self._ogg = container == "gif", container == "ogg"
        self._ts = container == "mpegts"
        self._mp4 = container.startswith("mov,mp4")
        self._theora = self._ogg and stream.codec_context.name == "theora"
        self._stream, self._file = stream, file
        self._objects = AsfObjects(file, stream.id) if container == "asf" else None
        self._until: int | None = None
        self._size = size

    def timed(self, packets: Iterable[Any]) -> Iterable[Any]:
        """Packets as they lie in the file, with the times that they have.

        The first one after a page of Theora that is lost, which FFmpeg has follow the last one
        before it, gets the time that the next one implies. The last one of a TS that breaks off
        is left out: TS does not say how long it was to be.
        """
        if self._ts:
            return self._without_cut(packets)
        return self._with_times(packets) if self._theora else packets

    def lies_before(self, packet: Any) -> bool:
        """Whether packets are missing; asked of each once."""
        if self._objects and packet.size and packet.pos is not None:
            return self._objects.lacks_before(packet.pos)
        if not self._theora or packet.pts is None:
            return False
        # Its frames follow each other without gaps: those that are dropped are empty packets.
        missing = self._until is not None and packet.pts > self._until
        self._until = packet.pts + packet.duration
        return missing

    def lies_in(self, packet: Any) -> bool:
        """Whether some of a packet is missing."""
        return self._gif and packet.size > 0 and not is_whole_image(bytes(packet))

    def lies_behind(self, end: int) -> bool:
        """Whether more was to follow the last packet.

        Args:
            end: the first byte after it.
        """
        size = self._size
        if self._objects:
            return self._objects.breaks_off(size)
        if self._ogg:
            return is_cut_ogg(self._file, size)
        if self._ts:
            return is_cut_ts(self._file, size)
        return self._mp4 and is_cut_box(self._file, end, size)

    def _with_times(self, packets: Iterable[Any]) -> Iterator[Any]:
        held: Any = None
        page: int | None = None  # where the packet before lies
        for packet in packets:
            if packet.stream.index != self._stream.index:
                yield packet
                continue
            if held is not None:
                if packet.pts is not None and held.pts is not None and held.pos != page:
                    held.pts = held.dts = max(held.pts, packet.pts - held.duration)
                page = held.pos
                yield held
            held = packet
        if held is not None:
            yield held

    def _without_cut(self, packets: Iterable[Any]) -> Iterator[Any]:
        held: Any = None
        for packet in packets:
            if packet.stream.index != self._stream.index or not packet.size:
                yield packet
                continue
            if held is not None:
                yield held
            held = packet
        if held is not None and not is_cut_ts(self._file, self._size):
            yield held


def is_whole_image(packet: bytes) -> bool:
    """Whether a packet of a GIF has one image, with all its blocks, and nothing else of weight.

    FFmpeg shows what it has of an image that is cut, over the one before.
    """
    at = _behind_header(packet) if packet.startswith(b"GIF8") else 0
    images = 0
    while at < len(packet):
        kind = packet[at]
        if kind == _TRAILER:
            break  # whatever follows
        if kind == _EXTENSION:
            at = _behind_blocks(packet, at + 2)
        elif kind == _IMAGE:
            flags = packet[at + 9] if at + 9 < len(packet) else 0
            at = _behind_blocks(packet, at + 10 + _table_size(flags) + 1)
            images += 1
        elif kind == 0:
            at += 1  # some programs write one block's end too many
        else:
            return False
        if at > len(packet):
            return False
    return images == 1


def _behind_header(packet: bytes) -> int:
    return 13 + _table_size(packet[10] if len(packet) > 10 else 0)


def _table_size(flags: int) -> int:
    """Bytes of the colours that a GIF's flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_blocks(packet: bytes, at: int) -> int:
    """The byte after blocks that each say their length, of which the last is empty; one that the
    packet does not have if it breaks off."""
    while at < len(packet) and packet[at]:
        at += 1 + packet[at]
    return at + 1


def is_cut_box(file: BinaryIO, at: int, size: int) -> bool:
    """Whether an MP4 ends in a box of which some is missing, or that announces pictures.

    Args:
        file: one that can seek; left where it is.
        at: a place in it where a box begins or the file ends.
        size: bytes of the file.
    """
    before = file.tell()
    last = b""
    try:
        for _ in range(_BOXES):
            if at == size:
                break
            file.seek(at)
            head = file.read(16)
            length, last = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16])
            if len(head) >= 8 and (last not in _TOP_BOXES or 0 < length < 8):
                return False  # no box: nothing can be said
            if len(head) < 8 or at + length > size:
                return True
            if not length:
                return False  # it goes to the end
            at += length
    finally:
        file.seek(before)
    return last == b"moof"


def is_cut_ogg(file: BinaryIO, size: int) -> bool:
    """Whether an Ogg file lacks the page that says that it is the last, or some of it.

    Args:
        file: one that can seek; left where it is.
        size: bytes of the file.
    """
    before = file.tell()
    file.seek(max(0, size - _PAGE))
    tail = file.read(_PAGE)
    file.seek(before)
    page = tail.rfind(b"OggS")
    segments = tail[page + 26] if page >= 0 and page + 26 < len(tail) else 0
    ends = page + 27 + segments + sum(tail[page + 27 : page + 27 + segments])
    return page < 0 or page + 27 > len(tail) or ends > len(tail) or not tail[page + 5] & _LAST_PAGE


def is_cut_ts(file: BinaryIO, size: int) -> bool:
    """Whether a TS ends within a packet.

    Args:
        file: one that can seek; left where it is.
        size: bytes of the file.
    """
    before = file.tell()
    file.seek(max(0, size - _TS_TAIL * (_TS_PACKET + _TS_PREFIXES[-1])))
    tail = file.read()
    file.seek(before)
    for prefix in _TS_PREFIXES:
        each = prefix + _TS_PACKET
        starts = range(prefix, each + prefix) if len(tail) > _TS_TAIL // 2 * each else ()
        for at in starts:
            if all(byte == _SYNC for byte in tail[at::each]):
                return (len(tail) - at + prefix) % each != 0
    return False
