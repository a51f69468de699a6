"""Files that are small, whole enough to be begun, and made to take memory, time or the planner."""

import os
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from paliflow.tests.jobs.videos import write
from paliflow.tests.jobs.zoo import riff, saved


def precincts(side: int) -> bytes:
    """A JPEG 2000 of some 80 bytes with a precinct for each of its pixels: 550 bytes of memory for
    each, 2.3 GB of 2048 x 2048."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">HH", marker, len(content) + 2) + content

    size = struct.pack(">H8IH", 0, side, side, 0, 0, side, side, 0, 0, 1) + bytes([7, 1, 1])
    coding = bytes([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0])  # no levels, precincts of 2^0 by 2^0
    return b"".join(
        [
            b"\xff\x4f",
            segment(0xFF51, size),
            segment(0xFF52, coding),
            segment(0xFF5C, b"\x40\x40"),
            struct.pack(">HHHIBB", 0xFF90, 10, 0, 14, 0, 1),
            b"\xff\x93\xff\xd9",
        ]
    )


def tiled_tiff(tile: int, compression: int = 8) -> bytes:
    """A TIFF of 16 x 16 pixels in one tile of `tile` x `tile`."""
    data = zlib.compress(bytes(100_000))
    count, longs = 10, {324: 8 + 2 + 10 * 12 + 4, 325: len(data)}
    shorts = {256: 16, 257: 16, 258: 8, 259: compression, 262: 1, 277: 1, 322: tile, 323: tile}
    entries = [struct.pack("<HHIHxx", tag, 3, 1, value) for tag, value in shorts.items()]
    entries += [struct.pack("<HHII", tag, 4, 1, value) for tag, value in longs.items()]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + b"".join(entries) + bytes(4) + data


def lying_avif(side: int) -> bytes:
    """An AVIF whose header says 64 x 64 pixels and whose frame has `side` x `side`."""
    content = saved(Image.new("RGB", (side, side)), "AVIF", speed=10)
    at = content.index(b"ispe") + 8
    return content[:at] + struct.pack(">II", 64, 64) + content[at + 8 :]


def slow_webp(side: int = 4096, frames: int = 50) -> bytes:
    """An animation of 2 kB; each of its frames takes about a second at 4096 x 4096."""
    plain = Image.new("RGB", (side, side), (1, 2, 3))
    still = saved(plain, "WEBP", lossless=True, quality=0, method=0)
    picture = still[still.index(b"VP8L") :]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    square = (side - 1).to_bytes(3, "little") * 2
    frame = bytes(6) + square + (40).to_bytes(3, "little") + b"\0" + picture
    extended = chunk(b"VP8X", bytes([18, 0, 0, 0]) + square)
    return riff(extended + chunk(b"ANIM", bytes(6)) + chunk(b"ANMF", frame) * frames)


def jpegs_film(path: Path, pictures: Sequence[bytes]) -> Path:
    """A film of JPEGs, 25 a second, whose header says 64 x 64 pixels whatever they are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        for number, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    return path


def growing_film(path: Path, side: int) -> Path:
    """A film of 10 frames of 64 x 64 pixels, one that says `side` x `side`, and 10 as before."""
    small = saved(Image.new("RGB", (64, 64), "green"), "JPEG")
    at = small.index(b"\xff\xc0") + 5
    large = small[:at] + struct.pack(">HH", side, side) + small[at + 4 :]
    return jpegs_film(path, [small] * 10 + [large] + [small] * 10)


def mp4_with_entries(path: Path, entries: int) -> Path:
    """An MP4 of ten frames, whose table says in three numbers that there are so many."""
    content = bytearray(write(path, frames=10).read_bytes())
    struct.pack_into(">I", content, content.index(b"stts") + 12, entries)
    struct.pack_into(">II", content, content.index(b"stsz") + 8, 1, entries)
    struct.pack_into(">I", content, content.index(b"stsc") + 16, entries)
    path.write_bytes(content)
    return path


def mp4_with_frames_of(path: Path, ticks: int) -> Path:
    """An MP4 of ten frames, each of which is shown for so many ticks of 1/16,000 s."""
    content = bytearray(write(path, frames=10).read_bytes())
    struct.pack_into(">I", content, content.index(b"stts") + 16, ticks)
    path.write_bytes(content)
    return path


def images(folder: Path, *, large: bool = True) -> dict[str, str]:
    """Puts the images into a folder.

    Returns:
        by name, what the error starts with.
    """
    made = {
        "precincts.jp2": (precincts(2048 if large else 1024), ""),
        "tile.tif": (tiled_tiff(24_576), "too many pixels"),
        "ispe.avif": (lying_avif(6000), "too many pixels"),
    }
    for name, (content, _) in made.items():
        (folder / name).write_bytes(content)
    return {name: error for name, (_, error) in made.items()}


def films(folder: Path) -> None:
    """Puts the films into a folder."""
    (folder / "slow.webp").write_bytes(slow_webp())
    growing_film(folder / "grows.mkv", 16_000)
    mp4_with_entries(folder / "entries.mp4", 20_000_000)
    mp4_with_frames_of(folder / "long.mp4", 2**30)
    mp4_with_frames_of(folder / "zero.mp4", 0)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
