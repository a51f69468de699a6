"""Video files with their frames' numbers drawn in them, made on the spot, whole and broken."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

BITS = 10
WIDTH, HEIGHT = 320, 240
_MS = Fraction(1, 1000)


def even(number: int) -> int:
    """Milliseconds of a frame of a video with 25 frames a second."""
    return 40 * number


def uneven(number: int) -> int:
    """Milliseconds of a frame where no two distances are alike and some are long."""
    return 40 * number + number % 7 * 5 + number // 50 * 300


def draw(number: int) -> NDArray[np.uint8]:
    """A picture of a number: a row of dark and bright bars, its bits."""
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for bit in range(BITS):
        picture[60:180, 32 * bit + 4 : 32 * bit + 28] = 235 if number >> bit & 1 else 20
    return picture


def read(image: Image.Image) -> int:
    """The number that is drawn in a picture."""
    grey = np.asarray(image.convert("L").resize((WIDTH, HEIGHT)))
    return sum(int(grey[120, 32 * bit + 16] > 127) << bit for bit in range(BITS))


def write(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 120,
    at: Callable[[int], int] = even,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    base: Fraction = _MS,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    picture_of: Callable[[int], NDArray[np.uint8]] = draw,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Encodes `frames` numbered frames, shown at so many milliseconds; returns the path."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(
                np.asarray(Image.fromarray(picture_of(number)).resize(size)), format="rgb24"
            )
            picture.pts, picture.time_base = int(at(number) * _MS / base), base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def with_moov_first(path: Path) -> Path:
    """An MP4 rewritten so that what is cut off at the end are frames, not their table."""
    into = path.with_stem(f"{path.stem}-fast")
    with (
        av.open(str(path)) as source,
        av.open(str(into), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return into


def turned(path: Path, across: tuple[int, int], down: tuple[int, int]) -> Path:
    """An MP4 whose display matrix says that what leads to the right in the picture is shown in the
    direction `across`, and what leads down in `down`; both are (right, down)."""
    one = 1 << 16
    content = bytearray(path.read_bytes())
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    place = content.index(plain, content.index(b"tkhd"))
    (a, b), (c, d) = across, down
    matrix = struct.pack(">9i", one * a, one * b, 0, one * c, one * d, 0, 0, 0, 1 << 30)
    content[place : place + 36] = matrix
    into = path.with_stem(f"{path.stem}-{a}{b}{c}{d}")
    into.write_bytes(content)
    return into


def edited(path: Path, *edits: tuple[int, int]) -> Path:
    """An MP4 whose edit list shows stretches of so many milliseconds, each from so many frames of
    25 a second after the first; its table must be at its end, as `write` puts it."""
    content = path.read_bytes()
    scale = int.from_bytes(content[(at := content.index(b"mdhd")) + 16 : at + 20], "big")
    old = content.index(b"elst") + 4
    (first,) = struct.unpack(">i", content[old + 12 : old + 16])
    entries = b"".join(
        struct.pack(">Iihh", lasts, first + frame * scale // 25, 1, 0) for lasts, frame in edits
    )
    box = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    box = struct.pack(">I4s", 8 + len(box), b"edts") + box
    start = content.index(b"edts") - 4
    (size,) = struct.unpack(">I", content[start : start + 4])
    result = bytearray(content[:start] + box + content[start + size :])
    for name in (b"moov", b"trak"):
        place = content.index(name) - 4
        (was,) = struct.unpack(">I", content[place : place + 4])
        result[place : place + 4] = struct.pack(">I", was + len(box) - size)
    into = path.with_stem(f"{path.stem}-edited")
    into.write_bytes(result)
    return into
