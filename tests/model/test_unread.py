"""Images that are known and not read are named, with what helps; they are not called broken."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paliflow.jobs.media.pixels import decode
from paliflow.model.unread import unread_format
from paliflow.tests.jobs.files import encode
from paliflow.tests.model.test_images import RAMP, _tiff

GREY = (RAMP * 255).astype(np.uint8)


def reason(data: bytes) -> str:
    decoded = decode(data, 10**6)
    assert isinstance(decoded, str), decoded
    return decoded


def with_tag(data: bytes, number: int, value: int) -> bytes:
    """A TIFF of `_tiff` with another value of a short tag."""
    at = data.index(struct.pack("<HHI", number, 3, 1), 8 + GREY.nbytes) + 8
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


def retagged(data: bytes, number: int, kind: int, content: bytes) -> bytes:
    """A TIFF of `_tiff` whose tag SampleFormat, which says nothing of bytes, became another."""
    at = data.index(struct.pack("<HH", 339, 3), 8 + GREY.nbytes)
    entry = struct.pack("<HHI", number, kind, 1) + content.ljust(4, b"\0")
    return data[:at] + entry + data[at + 12 :]


def psd(bits: int, version: int = 1, *, resources: bytes = b"") -> bytes:
    """A PSD of 4 x 2 grey pixels."""
    header = struct.pack(">4sH6xHIIHH", b"8BPS", version, 1, 2, 4, bits, 1)
    parts = (b"", resources, b"")
    return header + b"".join(struct.pack(">I", len(p)) + p for p in parts) + bytes(2 + bits)


def icon() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "ICO")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (icon(), "ICO"),
        (b"v/1\1\2\0\0\0" + bytes(40), "OpenEXR"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n" + bytes(8), "Radiance HDR"),
        (bytes(128) + b"DICM" + bytes(40), "DICOM"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "camera raw (CR2)"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40), "camera raw (CR3)"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(40), "camera raw (RAF)"),
        (with_tag(_tiff(GREY), 262, 32803), "camera raw (NEF"),
        (b"\0\0\0\x1cftypavci\0\0\0\0mif1miaf" + bytes(40), "HEIF of the brand 'avci'"),
        (psd(16), "PSD of 16 bits"),
        (psd(8, 2), "PSB"),
        (psd(8, resources=b"8BIM\x04\x21\0\0\0\0\0\5\0\0\0\1\0\0"), "PSD without a picture"),
        (with_tag(_tiff(GREY), 259, 34887), "TIFF of compression 34887"),
        (_tiff(np.stack([GREY] * 8, axis=-1)), "TIFF of 8 samples"),
        (encode("RGB", "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "JPEG of 12"),
        (encode("RGB", "JPEG").replace(b"\xff\xc0\0\x11", b"\xff\xc3\0\x11"), "lossless JPEG"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08\0\1\0\1\1" + bytes(40), "JPEG-LS"),
        (encode("RGB", "TGA").replace(b"\0\0\2", b"\0\0\x20", 1), "TGA: unknown TGA mode"),
        (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nENDHDR\n\0\0\0", "PAM"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_format_that_is_not_read_is_named(data: bytes, said: str) -> None:
    assert reason(data).startswith(f"unsupported image: {said}")


def test_what_is_no_picture_of_pixels_is_named() -> None:
    assert reason(b"%PDF-1.7\n").startswith("not an image, but a PDF: ")
    assert reason(b"<svg/>").startswith("not an image, but SVG: ")


def test_a_psd_that_says_that_it_has_its_picture_is_read() -> None:
    assert not isinstance(
        decode(psd(8, resources=b"8BIM\x04\x21\0\0\0\0\0\5\0\0\0\1\1\0"), 10**6), str
    )


def test_a_tga_is_known_by_its_end_where_its_unused_fields_are_not_empty() -> None:
    whole = bytearray(encode("RGB", "TGA"))
    whole[5:7] = b"\7\0"  # the length of a colour map that is not there
    assert not isinstance(decode(bytes(whole), 10**6), str)


def test_a_raw_files_thumbnail_is_not_the_picture() -> None:
    thumbnail = retagged(_tiff(GREY), 254, 4, struct.pack("<I", 1))
    assert not isinstance(decode(thumbnail, 10**6), str)  # alone it is the picture
    at = thumbnail.index(struct.pack("<HHI", 277, 3, 1), 8 + GREY.nbytes)  # samples: 1, if unsaid
    with_others = thumbnail[:at] + struct.pack("<HHII", 330, 4, 1, 8) + thumbnail[at + 12 :]
    assert reason(with_others).startswith("unsupported image: camera raw (NEF, ARW")


def test_of_a_tiff_that_begins_with_a_thumbnail_the_picture_is_taken() -> None:
    pages = [Image.new("RGB", size, colour) for size, colour in (((8, 6), "red"), ((80, 60), 9))]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], tiffinfo={254: 1})
    content = bytearray(file.getvalue())
    while (at := content.rfind(struct.pack("<HHII", 254, 4, 1, 1))) > content.find(
        struct.pack("<HHII", 254, 4, 1, 1)
    ):
        content[at + 8] = 0  # of the second page, which has the same tags
    decoded = decode(bytes(content), 10**6)
    assert not isinstance(decoded, str), decoded
    assert (decoded.width, decoded.height) == (80, 60)


@given(st.sampled_from([b"", b"II*\0", b"MM\0*", b"\xff\xd8", b"8BPS\0\1"]), st.binary(max_size=99))
def test_whatever_a_file_begins_with_it_is_named_or_not(start: bytes, rest: bytes) -> None:
    assert unread_format(start + rest) is None or unread_format(start + rest)
