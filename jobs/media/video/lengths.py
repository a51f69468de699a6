"""How long a file says that it and its parts are: what a demuxer does not tell of damaged ones."""

from typing import BinaryIO

_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
HEAD = 4096
"""Bytes from the start in which it is said."""
_UNKNOWN = 0xFFFF_FFFF - 8
"""What who cannot go back to the start of an AVI writes there, or a little less."""
_CLUSTER, _GROUP = 0x1F43B675, 0xA0
_MATROSKA_BETWEEN = {
    *(0xEC, 0xBF),  # anywhere: room that is free, a checksum
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B),  # index of parts, info, tracks, cues
    *(0x1254C367, 0x1941A469, 0x1043A770),  # tags, attachments, chapters
    *(0xE7, 0xA7, 0xAB, 0x5854),  # of a cluster: time, place, size before, silent tracks
    *(0xA3, 0xA1, 0xAF),  # blocks, which FFmpeg passes over if nobody knows their track
    *(0x9B, 0xFB, 0xFA, 0xA4, 0x75A1, 0x75A2, 0x8E),  # what follows a block in its group
}
_MOST = 10_000
"""Elements that are looked at; more are not between two packets."""


def announced_size(head: bytes) -> int | None:
    """Bytes of a whole file, by the beginning of it; None where that does not say.

    Matroska and WebM (RFC 8794, RFC 9559) say it of their segment, AVI of its first RIFF chunk.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        size = int.from_bytes(head[4:8], "little")
        return None if size >= _UNKNOWN else 8 + size
    if head[:4] == _MATROSKA and (place := head.find(_SEGMENT)) >= 0:
        start = place + len(_SEGMENT)
        first = head[start : start + 1]
        width = 9 - first[0].bit_length() if first and first[0] else 0
        if width and start + width <= len(head):
            size = int.from_bytes(head[start : start + width], "big") & (1 << 7 * width) - 1
            if size != (1 << 7 * width) - 1:
                return start + width + size
    return None


def is_filled(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether the elements of a Matroska file follow each other from one place to another.

    Args:
        file: is read, and stands where it stood.
        start: where an element begins.
        stop: the file's end, or a place in the head of a block.
    """
    stood = file.tell()
    try:
        for _ in range(_MOST):
            file.seek(start)
            head = file.read(12)
            own = 9 - head[0].bit_length() if head and head[0] else 9
            rest = head[own:]
            width = 9 - rest[0].bit_length() if rest and rest[0] else 9
            if own > 4 or width > len(rest):
                return False
            name = int.from_bytes(head[:own], "big")
            size = int.from_bytes(rest[:width], "big") & (1 << 7 * width) - 1
            start += own + width
            if name not in (_CLUSTER, _GROUP):
                if name not in _MATROSKA_BETWEEN:
                    return False
                if start <= stop < start + size:
                    return True  # in the block that begins here
                start += size
            if start >= stop:
                return start == stop
        return False
    finally:
        file.seek(stood)
