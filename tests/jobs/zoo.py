"""Hostile inputs: files, names and things that are no files, each with what should become of it."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paliflow.tests.jobs.files import encode

OK = None
BROKEN = "truncated or broken image"
NO_IMAGE = "not an image"
UNSUPPORTED = "unsupported image"
LARGE = "too many pixels"
UNREADABLE = "cannot be read"
LATIN_1 = os.fsdecode("größe".encode("latin-1"))
"""A name that is not UTF-8, as Python spells it."""
FORMATS = {
    "avif": "AVIF",
    "bmp": "BMP",
    "gif": "GIF",
    "jp2": "JPEG2000",
    "jpg": "JPEG",
    "png": "PNG",
    "ppm": "PPM",
    "tif": "TIFF",
    "webp": "WEBP",
}


def fill(folder: Path) -> dict[str, str | None]:
    """Puts every animal into a new folder.

    Returns:
        by name in the folder, what its error starts with; None for those that are good.
    """
    folder.mkdir()
    wanted: dict[str, str | None] = {}
    for name, content, error in (*_truncated(), *_bombs(), *_exif(), *_modes(), *_others()):
        (folder / name).write_bytes(content)
        wanted[name] = error
    good = encode("RGB", "PNG")
    for name in _names():
        (folder / name).write_bytes(good)
        wanted[name] = OK
    (folder / "forbidden.jpg").write_bytes(good)
    (folder / "forbidden.jpg").chmod(0)
    wanted["forbidden.jpg"] = OK if os.geteuid() == 0 else "no access"
    for name, make in _no_files().items():
        make(folder / name)
        wanted[name] = UNREADABLE
    wanted["dangling.jpg"] = "not found"
    return wanted


Animal = tuple[str, bytes, str | None]


def _truncated() -> Iterator[Animal]:
    for suffix, kind in FORMATS.items():
        content = encode("RGB", kind, (120, 90))
        yield f"whole.{suffix}", content, OK
        yield f"first-byte.{suffix}", content[:1], NO_IMAGE
        for percent in (20, 60):
            yield f"{percent}-percent.{suffix}", content[: len(content) * percent // 100], BROKEN
    jpeg = encode("RGB", "JPEG", (120, 90))
    yield "middle-zeroed.jpg", jpeg[:2000] + bytes(1000) + jpeg[3000:], OK  # libjpeg goes on
    yield "garbage-behind.jpg", jpeg + os.urandom(10_000), OK
    png = encode("RGB", "PNG", (120, 90))
    yield "bad-checksum.png", png[:60] + bytes([png[60] ^ 1]) + png[61:], BROKEN


def _bombs() -> Iterator[Animal]:
    yield "bomb-20000.png", png(20_000, 20_000), LARGE
    yield "bomb-whole.png", png(20_000, 20_000, bytes(20_000 * 2501)), LARGE
    yield "bomb-wide.png", png(2**31 - 1, 1), LARGE
    yield "bomb-2-31.png", png(2**31 - 1, 2**31 - 1), LARGE
    yield "no-width.png", png(0, 10), BROKEN
    yield "no-pixels.png", png(0, 0), BROKEN
    text = zlib.compress(bytes(50_000_000), 9)
    yield "bomb.ztxt.png", png(1, 1, bytes(2), (b"zTXt", b"a\0\0" + text)), OK
    yield "bomb.itxt.png", png(1, 1, bytes(2), (b"iTXt", b"a\0\1\0\0\0" + text)), OK
    yield "bomb.iccp.png", png(1, 1, bytes(2), (b"iCCP", b"a\0\0" + text)), OK
    many = [(b"tEXt", b"a\0" + bytes(100_000))] * 100
    yield "much-text.png", png(1, 1, bytes(2), *many), OK
    gif = encode("P", "GIF")
    yield "bomb.gif", gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:], LARGE
    yield "no-pixels.gif", gif[:6] + struct.pack("<HH", 0, 0) + gif[10:], OK  # its frame has
    bmp = encode("RGB", "BMP")
    yield "bomb.bmp", bmp[:18] + struct.pack("<ii", 2**31 - 1, 30) + bmp[26:], LARGE
    yield "upside-down.bmp", bmp[:18] + struct.pack("<ii", 40, -30) + bmp[26:], OK
    yield "bomb.ppm", b"P6 99999999 99999999 255\n" + bytes(30), LARGE
    yield "no-pixels.ppm", b"P6 0 0 255\n", BROKEN
    yield "bomb.tif", tiff(100_000, 100_000), LARGE
    yield "no-pixels.tif", tiff(0, 0), BROKEN
    webp = "524946461e000000574542505650384c110000002f0fe7c3090750e42ad4a3ff8188e87f0000"
    yield "bomb.webp", bytes.fromhex(webp), LARGE  # 10,000 x 10,000 pixels of one colour
    extended = b"VP8X" + struct.pack("<IB3x", 10, 0) + (16_383).to_bytes(3, "little") * 2
    yield "canvas.webp", riff(extended + encode("RGB", "WEBP")[12:]), BROKEN
    jpeg = encode("RGB", "JPEG")
    size = jpeg.index(b"\xff\xc0") + 5
    yield "bomb.jpg", jpeg[:size] + struct.pack(">HH", 65500, 65500) + jpeg[size + 4 :], LARGE
    yield "no-pixels.jpg", jpeg[:size] + struct.pack(">HH", 0, 0) + jpeg[size + 4 :], BROKEN
    yield "scans.jpg", many_scans(), LARGE
    yield "long-comment.jpg", encode("RGB", "JPEG", comment=bytes(60_000)), OK


def _exif() -> Iterator[Animal]:
    for value in (0, 1, 6, 8, 9, 255, 65535):
        exif = Image.Exif()
        exif[0x0112] = value
        yield f"orientation-{value}.jpg", encode("RGB", "JPEG", exif=exif), OK
    header = b"II*\0\x08\0\0\0"
    turn = struct.pack("<HHII", 0x0112, 3, 1, 6)
    blocks = {
        "loop": header + struct.pack("<H", 1) + turn + struct.pack("<I", 8),
        "sub-loop": header + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 0),
        "cut": header + struct.pack("<H", 20) + turn,
        "far": b"II*\0\xff\xff\xff\x7f",
        "text": header + struct.pack("<HHHI4sI", 1, 0x0112, 2, 4, b"six\0", 0),
        "huge": header + struct.pack("<HHHIII", 1, 0x0112, 3, 2**32 - 1, 8, 0),
        "garbage": bytes(range(200)),
        "empty": b"",
    }
    for name, block in blocks.items():
        yield f"exif-{name}.jpg", encode("RGB", "JPEG", exif=b"Exif\0\0" + block), OK


def _modes() -> Iterator[Animal]:
    for mode in ("1", "L", "LA", "I;16", "P", "RGBA"):
        yield f"mode-{mode.replace(';', '-')}.png", encode(mode, "PNG"), OK
    for mode in ("1", "L", "LA", "I;16", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F"):
        yield f"mode-{mode.replace(';', '-')}.tif", encode(mode, "TIFF"), OK
    for mode in ("L", "CMYK"):
        yield f"mode-{mode}.jpg", encode(mode, "JPEG", progressive=True), OK
    yield "transparent.png", encode("P", "PNG", transparency=bytes(range(256))), OK
    yield "transparent.gif", encode("P", "GIF", transparency=3), OK
    nowhere = np.full((30, 40), np.nan, np.float32)
    nowhere[0] = np.inf
    yield "nan.tif", saved(Image.fromarray(nowhere), "TIFF"), OK
    more: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", (40, 30), "red")]}
    for suffix, kind in {"gif": "GIF", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}.items():
        yield f"animated.{suffix}", encode("RGB", kind, **more), OK
    yield "animated.mpo.jpg", encode("RGB", "MPO", **more), OK
    yield "one-pixel.png", png(1, 1, bytes(2)), OK
    yield "wide.png", png(60_000, 1, bytes(7501)), OK
    yield "high.png", png(1, 60_000, bytes(120_000)), OK


def _others() -> Iterator[Animal]:
    yield "png-called.jpg", encode("RGB", "PNG"), OK
    yield "jpg-called.tif", encode("RGB", "JPEG"), OK
    yield "empty.jpg", b"", "empty file"
    yield "zeros.jpg", bytes(100_000), NO_IMAGE
    yield "noise.jpg", np.random.default_rng(0).bytes(100_000), NO_IMAGE
    yield "page.jpg", b"<!doctype html><title>404</title>", NO_IMAGE
    yield "drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', NO_IMAGE
    yield "script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_IMAGE
    yield "document.png", b"%PDF-1.7\n", NO_IMAGE
    yield "film.jpg", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", NO_IMAGE
    yield "archive.jpg", b"PK\3\4" + bytes(100), NO_IMAGE
    yield "program.jpg", b"\x7fELF" + bytes(100), NO_IMAGE
    yield "magic-only.png", b"\x89PNG\r\n\x1a\n", BROKEN
    yield "icon.png", saved(Image.new("RGB", (16, 16)), "ICO"), UNSUPPORTED


def _names() -> list[str]:
    # fmt: off
    names = [
        "#1", "what?", "100%", "%41", "back\\slash", "\\xff", "'quoted'", "$(touch x)", "`x`",
        "-rf", "a;b|c&", "*", "[a]", "{a,b}", "größe", "gro\u0308ße", "日本語", "😀", "\u202egpj",
        "\x1b[31m", "", ".jpg", "CON", "a:b", "a@b", "a+b=", "<a>",
    ]
    # fmt: on
    names += [" leading space", "two  spaces", "new\nline", "tab\t", '"', "long" * 62, LATIN_1]
    return [f"{name}.jpg" for name in names]


def _no_files() -> dict[str, Callable[[Path], object]]:
    return {
        "pipe.jpg": os.mkfifo,
        "socket.jpg": _bind,
        "endless.jpg": lambda path: path.symlink_to("/dev/zero"),
        "nothing.jpg": lambda path: path.symlink_to("/dev/null"),
        "kernel.jpg": lambda path: path.symlink_to("/proc/self/mem"),
        "dangling.jpg": lambda path: path.symlink_to("nowhere.jpg"),
        "circle.jpg": lambda path: path.symlink_to("circle.jpg"),
        "folder.jpg": Path.mkdir,
    }


def _bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have some hundred bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def png(width: int, height: int, rows: bytes = b"\0", *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 1-bit grey: what its header says and what its rows are need not agree."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def tiff(width: int, height: int) -> bytes:
    """A TIFF of one grey strip that is not there."""
    fields = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + bytes(4)


def riff(chunks: bytes) -> bytes:
    """A WebP of these chunks."""
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def many_scans() -> bytes:
    """A progressive JPEG whose last scan comes a thousand times."""
    content = saved(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 1000 + content[-2:]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of a kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
