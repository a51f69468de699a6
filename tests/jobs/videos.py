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
) -> Path:
    """Encodes `frames` numbered frames, shown at so many milliseconds; returns the path."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(
                np.asarray(Image.fromarray(draw(number)).resize(size)), format="rgb24"
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


def turned(path: Path, degrees: int) -> Path:
    """An MP4 whose display matrix says that it is to be turned."""
    one = 1 << 16
    matrix = {90: (0, one, 0, -one, 0, 0), 180: (-one, 0, 0, 0, -one, 0), 0: (one, 0, 0, 0, one, 0)}
    content = bytearray(path.read_bytes())
    plain = struct.pack(">9i", *matrix[0], 0, 0, 1 << 30)
    place = content.index(plain, content.index(b"tkhd"))
    content[place : place + 36] = struct.pack(">9i", *matrix[degrees], 0, 0, 1 << 30)
    into = path.with_stem(f"{path.stem}-{degrees}")
    into.write_bytes(content)
    return into
