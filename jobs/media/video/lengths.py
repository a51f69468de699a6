"""How long a file says that it is: what a demuxer does not tell of one that was cut off."""

_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
HEAD = 4096
"""Bytes from the start in which it is said."""


def announced_size(head: bytes) -> int | None:
    """Bytes of a whole file, by the beginning of it; None where that does not say.

    Matroska and WebM (RFC 8794, RFC 9559) say it of their segment, AVI of its first RIFF chunk.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return 8 + int.from_bytes(head[4:8], "little") or None
    if head[:4] == _MATROSKA and (place := head.find(_SEGMENT)) >= 0:
        start = place + len(_SEGMENT)
        first = head[start : start + 1]
        width = 9 - first[0].bit_length() if first and first[0] else 0
        if width and start + width <= len(head):
            size = int.from_bytes(head[start : start + width], "big") & (1 << 7 * width) - 1
            if size != (1 << 7 * width) - 1:
                return start + width + size
    return None
