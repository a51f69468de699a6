"""Image formats that are known and not read: by which bytes they are told, and what helps."""

from collections.abc import Iterator

from PIL.PsdImagePlugin import MODES
from PIL.TiffImagePlugin import COMPRESSION_INFO

_RAW = "camera raw ({}): develop it, e.g. with darktable-cli or dcraw_emu"
_LINEAR = "{} holds light, not what a screen shows: tone-map it, e.g. with oiiotool or ImageMagick"
_PLAIN = "{}: convert it to PNG, e.g. with ImageMagick"
_STARTS = {
    b"\xff\x0a": "JPEG XL: convert it, e.g. with djxl",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL: convert it, e.g. with djxl",
    b"\0\0\1\0": _PLAIN.format("ICO, an icon in several sizes"),
    b"icns": _PLAIN.format("ICNS, an icon in several sizes"),
    b"v/1\1": _LINEAR.format("OpenEXR"),
    b"#?RADIANCE": _LINEAR.format("Radiance HDR"),
    b"#?RGBE": _LINEAR.format("Radiance HDR"),
    b"PF\n": _LINEAR.format("PFM in colour"),
    b"SDPX": _LINEAR.format("DPX"),
    b"XPDS": _LINEAR.format("DPX"),
    b"8BPS\0\2": "PSB, Photoshop's large format: export it as TIFF or PNG",
    b"gimp xcf ": "XCF, GIMP's own format: export it as PNG",
    b"II*\0\x10\0\0\0CR": _RAW.format("CR2"),
    b"II\x1a\0\0\0HEAPCCDR": _RAW.format("CRW"),
    b"FUJIFILMCCD-RAW": _RAW.format("RAF"),
    b"IIRO": _RAW.format("ORF"),
    b"IIRS": _RAW.format("ORF"),
    b"MMOR": _RAW.format("ORF"),
    b"IIU\0": _RAW.format("RW2"),
    b"FOVb": _RAW.format("X3F"),
    b"\0MRM": _RAW.format("MRW"),
    b"II\xbc\1": "JPEG XR: convert it, e.g. with JxrDecApp",
    b"AT&TFORM": "DjVu: make images of its pages, e.g. with ddjvu",
    b"BPG\xfb": "BPG: convert it, e.g. with bpgdec",
    b"P7\n": _PLAIN.format("PAM"),
    b"qoif": _PLAIN.format("QOI"),
    b"DDS ": _PLAIN.format("DDS"),
    b"\x01\xda\x00": _PLAIN.format("SGI"),
    b"\x01\xda\x01": _PLAIN.format("SGI"),
    b"\x59\xa6\x6a\x95": _PLAIN.format("Sun raster"),
    b"SIMPLE  =": "FITS: choose a range and convert it, e.g. with astropy",
}
_DICOM = "DICOM: choose a window and convert it, e.g. with dcmj2pnm of DCMTK"
_BRANDS = {b"crx ": _RAW.format("CR3")}
_HEIF = "HEIF of the brand {!r}: convert it, e.g. with heif-dec"
# fmt: off
_HEIF_READ = (
    b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs",
    b"mif1", b"msf1",
)
# fmt: on
_FRAMES = {
    0xC3: "lossless JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "lossless JPEG",
    0xCB: "lossless JPEG",
    0xCD: "hierarchical JPEG",
    0xCE: "hierarchical JPEG",
    0xCF: "lossless JPEG",
    0xF7: "JPEG-LS",
}
"""JPEG's processes by the marker that their frame begins with (T.81, B.1.1.3; T.87), but for those
that are read: baseline, extended and progressive, whether by Huffman or by arithmetic codes."""
_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _SUB_IFDS, _DNG = 254, 259, 262, 277, 330, 50706
_COLOUR_FILTERS, _LINEAR_RAW = 32803, 34892
_THUMBNAIL = 1
_WEBP = 50001
"""Pillow's wheels have a libtiff without it."""
_MOST_SAMPLES = 6
_MOST_SEGMENTS = 1000


def unread_format(data: bytes) -> str | None:
    """What an image is that cannot be read though it may be whole, and what helps; None of others.

    Args:
        data: the file.
    """
    head = data[:32]
    if said := next((said for start, said in _STARTS.items() if head.startswith(start)), None):
        return said
    if data[128:132] == b"DICM":
        return _DICOM
    if head.startswith(b"8BPS\0\1"):
        return _psd(head)
    if head[4:8] == b"ftyp":
        return _heif(data)
    if head.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if head[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(data)
    return None


def _psd(head: bytes) -> str | None:
    bits, mode = int.from_bytes(head[22:24]), int.from_bytes(head[24:26])
    if len(head) < 26 or (mode, bits) in MODES:
        return None
    return f"PSD of {bits} bits in mode {mode}: export it as TIFF or PNG"


def _heif(data: bytes) -> str | None:
    brand, size = data[8:12], int.from_bytes(data[:4])
    if brand in _BRANDS:
        return _BRANDS[brand]
    others = data[16 : min(size, 256)]
    if brand in _HEIF_READ or not any(each in others for each in (b"mif1", b"msf1", b"miaf")):
        return None
    return _HEIF.format(brand.decode("ascii", "replace"))


def _jpeg(data: bytes) -> str | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":
            at += 1  # filled up
        if at + 5 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if kind := _FRAMES.get(marker):
            return _PLAIN.format(kind)
        if marker in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
            bits = data[at + 4]
            return _PLAIN.format("JPEG of 12 bits") if bits == 12 else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _tiff(data: bytes) -> str | None:
    tags = dict(_first_directory(data))
    raw = tags.get(_PHOTOMETRIC) in (_COLOUR_FILTERS, _LINEAR_RAW)
    thumbnail = tags.get(_SUBFILE, 0) & _THUMBNAIL and _SUB_IFDS in tags
    if raw or thumbnail:
        # What a reader of TIFF finds is a preview, of another size and cut otherwise.
        return _RAW.format("DNG" if _DNG in tags else "NEF, ARW and others that look like TIFF")
    compression, samples = tags.get(_COMPRESSION, 1), tags.get(_SAMPLES, 1)
    if compression not in COMPRESSION_INFO or compression == _WEBP:
        return f"TIFF of compression {compression}: save it with another, e.g. with tiffcp"
    if samples > _MOST_SAMPLES:
        return f"TIFF of {samples} samples a pixel: choose three of them"
    return None


def _first_directory(data: bytes) -> Iterator[tuple[int, int]]:
    """Tags and values of a TIFF's first directory; of values that lie elsewhere, where."""
    order = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]

    start = number(4, 4)
    for place in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        kind, count = number(place + 2, 2), number(place + 4, 4)
        yield number(place, 2), number(place + 8, 2 if kind == 3 and count == 1 else 4)
