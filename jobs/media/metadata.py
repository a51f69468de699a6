"""Image files without their metadata: places, owners, comments; the pixels stay as they are stored.

What turns the image upright (EXIF's orientation) and what its colours mean (ICC) is kept.
"""

import struct
import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"
_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT pHYs bKGD acTL fcTL fdAT cICP".split()
)
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_WEBP_FLAGS = 0x0C
"""Of VP8X: that there are EXIF and XMP."""
_APP0, _APP2, _APP14 = 0xE0, 0xE2, 0xEE
_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
_COM = 0xFE
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))


def without_metadata(data: bytes, orientation: int = 1) -> bytes | None:
    """A JPEG, PNG or WebP without metadata, nothing being encoded again; None of other formats.

    Args:
        data: a file that can be decoded.
        orientation: EXIF's, which stays.

    Raises:
        ValueError: its parts do not follow the format.
    """
    exif = _exif(orientation) if orientation != 1 else b""
    try:
        if data.startswith(_SOI):
            return _jpeg(data, exif)
        if data.startswith(_PNG):
            return _png(data, exif)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return None if exif else _webp(data)
    except (struct.error, IndexError):
        raise ValueError("the file ends within a part of it") from None
    return None


def _exif(orientation: int) -> bytes:
    """A TIFF header with one entry: tag 0x0112, one short."""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)


def _jpeg(data: bytes, exif: bytes) -> bytes:
    kept = bytearray(_SOI)
    if exif:
        kept += b"\xff\xe1" + struct.pack(">H", len(_EXIF + exif) + 2) + _EXIF + exif
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("no marker where one belongs")
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker, at = data[at], at + 1
        if marker == _EOI[1]:
            return bytes(kept + _EOI)
        if marker in _WITHOUT_LENGTH:
            kept += bytes((0xFF, marker))
            continue
        (size,) = struct.unpack_from(">H", data, at)
        segment, at = data[at : at + size], at + size
        if len(segment) < size or size < 2:
            raise ValueError("a segment ends behind the file")
        if _is_kept(marker, segment[2:]):
            kept += bytes((0xFF, marker)) + segment
        if marker == _SOS:
            end = _scan_end(data, at)
            kept += data[at:end]
            at = end
            if at == len(data):  # as decoders do, without complaint
                return bytes(kept)


def _is_kept(marker: int, content: bytes) -> bool:
    if marker == _APP0:
        return content.startswith(b"JFIF\0")
    if marker == _APP2:
        return content.startswith(b"ICC_PROFILE\0")
    return marker == _APP14 or not (0xE0 <= marker <= 0xEF or marker == _COM)


def _scan_end(data: bytes, at: int) -> int:
    """Where a scan's entropy-coded bytes end: at a marker that is none of theirs."""
    while (at := data.find(b"\xff", at)) >= 0:
        if at + 1 == len(data):
            break
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7 and data[at + 1] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2
    return len(data)


def _png(data: bytes, exif: bytes) -> bytes:
    kept = bytearray(_PNG)
    for kind, chunk in _chunks(data, len(_PNG)):
        if kind in _PNG_KEPT:
            kept += chunk
        if kind == b"IHDR" and exif:
            checksum = zlib.crc32(b"eXIf" + exif)
            kept += struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", checksum)
        if kind == b"IEND":
            break
    return bytes(kept)


def _chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            raise ValueError("a chunk ends behind the file")
        yield kind, data[at:end]
        at = end


def _webp(data: bytes) -> bytes:
    kept, at = bytearray(), 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        end = at + 8 + size + size % 2
        if at + 8 + size > len(data):
            raise ValueError("a chunk ends behind the file")
        chunk = bytearray(data[at:end])
        if kind == b"VP8X":
            chunk[8] &= ~_WEBP_FLAGS & 0xFF
        if kind in _WEBP_KEPT:
            kept += chunk + bytes(end - at - len(chunk))
        at = end
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + bytes(kept)
