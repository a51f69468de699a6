"""Image files of every kind, good and broken, and tables, made on the spot."""

import csv
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encode(mode: str, kind: str, size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """A noisy image of a Pillow mode as a file of a kind, e.g. `JPEG`."""
    noise = np.random.default_rng(len(mode)).integers(0, 256, (size[1], size[0], 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(noise).convert("RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header announces `side` x `side` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def write_mixed(folder: Path, count: int) -> None:
    """`count` files called *.jpg or *.PNG in two folders; four of every ten are broken."""
    (folder / "sub").mkdir(parents=True)
    jpeg, png = encode("RGB", "JPEG"), encode("RGB", "PNG")
    broken = [jpeg[: len(jpeg) // 2], b"", b"not an image", bomb(50_000)]
    contents = [jpeg, png, broken[0], png, broken[1], jpeg, broken[2], jpeg, png, broken[3]]
    for number in range(count):
        name = f"{'sub/' * (number % 2)}{number:03d}.{('jpg', 'PNG')[number % 2]}"
        (folder / name).write_bytes(contents[number % len(contents)])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes a table in the format that the name ends in; returns the path."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
