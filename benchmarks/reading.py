"""Reading and decoding JPEGs in this process's threads against the pool of decoder processes.

    python -m paliflow.benchmarks.reading --images 400

Both read the same files, cached by the system, through the same queue, from which a device is fed;
turn and turn about, so that what else the machine does concerns both.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import typer
from PIL import Image

from paliflow.configs import AnnotateSpec
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import Read, reader
from paliflow.jobs.media.reading import Input, read_input
from paliflow.jobs.runs.item import Item

SIDES = 224, 640, 1920
SIZE, DEPTH = 224, 32


def write(folder: Path, side: int, count: int) -> list[Item]:
    """Photograph-like JPEGs of `side` x 3/4 `side` pixels."""
    rng = np.random.default_rng(0)
    items = []
    for number in range(count):
        noise = rng.integers(0, 256, (side // 16, side // 12, 3), np.uint8)
        image = Image.fromarray(noise).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
        path = folder / f"{side}-{number}.jpg"
        image.save(path, quality=90)
        items.append(Item(str(path)))
    return items


def in_threads(item: Item) -> Iterator[Input | None]:
    """As before there were decoder processes."""
    yield read_input(item, size=SIZE, max_pixels=10**8, thumbnail=None, https_hosts=())


def rate(read: Read, items: list[Item], readers: int) -> float:
    """Images a second."""
    started = time.perf_counter()
    with closing(ReadAhead(read, items, DEPTH, 60.0, readers)) as ahead:
        done = sum(found.pixels is not None for found in ahead)
    assert done == len(items)
    return done / (time.perf_counter() - started)


def main(images: int = 400, rounds: int = 5) -> None:
    """Prints the median rates of both, and their ratio, by size and number of readers."""
    spec = AnnotateSpec.parse({"input": "x", "output": "x", "run_id": "x", "prompts": ["x"]})
    ways = {"threads": in_threads, "pool": reader(spec, SIZE)}
    with tempfile.TemporaryDirectory() as name:
        for side in SIDES:
            items = write(Path(name), side, max(8, images * SIDES[0] // side))
            for readers in (1, 2, 4, 8):
                measure = partial(rate, items=items, readers=readers)
                for read in ways.values():
                    measure(read)
                rates: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(rounds):
                    for way, read in ways.items():
                        rates[way].append(measure(read))
                threads, pool = (float(np.median(rates[way])) for way in ways)
                print(
                    f"{side:5d} pixels, {readers} readers: threads {threads:.0f} images/s, "
                    f"pool {pool:.0f} images/s, ratio {pool / threads:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    typer.run(main)
