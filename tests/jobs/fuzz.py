"""Mutated images and films, the same for the same seed: `python -m paliflow.tests.jobs.fuzz 50000`.

Run so, each goes through the pool of decoders, without Ray and without a model; it is an error if
one gives neither a result nor a reason, or takes longer than its clock.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from paliflow.configs import AnnotateSpec
from paliflow.jobs.media.reader import reader
from paliflow.jobs.runs.item import Item
from paliflow.tests.jobs.files import encode
from paliflow.tests.jobs.videos import write
from paliflow.tests.jobs.zoo import FORMATS

FILMS = {
    "mp4": ("libx264", "yuv420p", {"preset": "ultrafast"}),
    "mkv": ("libx264", "yuv420p", {"preset": "ultrafast"}),
    "webm": ("libvpx", "yuv420p", {"deadline": "realtime"}),
    "avi": ("mjpeg", "yuvj420p", {}),
    "ts": ("libx264", "yuv420p", {"preset": "ultrafast"}),
    "mov": ("mpeg4", "yuv420p", {}),
    "gif": ("gif", "rgb8", {}),
    "apng": ("apng", "rgb24", {}),
    "ogv": ("libvpx", "yuv420p", {"deadline": "realtime"}),
    "wmv": ("wmv2", "yuv420p", {}),
}
LIMITS = {"read_timeout": 20, "video_timeout": 40, "decoder_memory": 1000}
_SUSPICIOUS = (0, 1, 0x7F, 0x80, 0xFF)


@cache
def _seeds(films: bool) -> dict[str, bytes]:
    """Small whole files by suffix."""
    if not films:
        whole = {suffix: encode("RGB", kind, (64, 48)) for suffix, kind in FORMATS.items()}
        noise = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
        frames = [Image.fromarray(each) for each in noise]
        whole["tiff"] = encode("RGB", "TIFF", (64, 48), compression="tiff_lzw")
        whole["jpeg"] = encode("CMYK", "JPEG", (64, 48), progressive=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.webp")
            frames[0].save(path, save_all=True, append_images=frames[1:])
            return whole | {"animated.webp": path.read_bytes()}
    with tempfile.TemporaryDirectory() as folder:
        return {
            suffix: write(
                *(Path(folder, f"a.{suffix}"), codec),
                frames=8, size=(64, 48), pixels=pixels, options=options,
            ).read_bytes()
            for suffix, (codec, pixels, options) in FILMS.items()
        }  # fmt: skip


def mutations(count: int, seed: int, *, films: bool) -> Iterator[tuple[str, bytes]]:
    """Names and contents: bytes changed, doubled, cut out and cut off, mostly near the start."""
    dice = random.Random(seed)
    seeds = sorted(_seeds(films).items())
    for number in range(count):
        suffix, whole = seeds[number % len(seeds)]
        content = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 4, 16))):
            at = int(len(content) * dice.random() ** dice.choice((1, 4)))
            size = dice.choice((1, 1, 2, 4, 4, 8, 64))
            match dice.randrange(6):
                case 0:
                    content[at : at + size] = dice.randbytes(size)
                case 1:
                    content[at : at + size] = bytes([dice.choice(_SUSPICIOUS)]) * size
                case 2:
                    content[at : at + size] = b""
                case 3:
                    content[at:at] = content[at : at + size]
                case 4 if len(content) > at:
                    content[at] ^= 1 << dice.randrange(8)
                case _ if dice.random() < 0.2:
                    del content[at + 1 :]
        yield f"{number:06d}.{suffix}", bytes(content)


def _spec(films: bool) -> AnnotateSpec:
    base = {"input": "x", "output": "x", "run_id": "x", "prompts": ["x"]}
    return AnnotateSpec.parse(base | LIMITS | ({"video": {"every_frames": 2}} if films else {}))


def main(count: int, seed: int = 0) -> None:
    """Prints progress and, at the end, how many became what."""
    outcomes: Counter[str] = Counter()
    slowest, started, done = (0.0, ""), time.monotonic(), 0

    with tempfile.TemporaryDirectory() as folder:
        readers = {films: reader(_spec(films), 56) for films in (False, True)}

        def read(films: bool, name: str, content: bytes) -> tuple[str, float, str]:
            path = Path(folder, f"{films}-{name}")
            path.write_bytes(content)
            begun = time.monotonic()
            found = [each for each in readers[films](Item(str(path))) if each]
            path.unlink()
            assert found or films, name
            reason = next((each.error for each in found if each.error), "decoded")
            return reason.partition(":")[0][:60], time.monotonic() - begun, name

        with ThreadPoolExecutor(4) as threads:
            for films, share in ((False, count * 3 // 4), (True, count - count * 3 // 4)):
                files = mutations(share, seed, films=films)
                while some := list(islice(files, 500)):
                    names, contents = zip(*some, strict=True)
                    found = threads.map(partial(read, films), names, contents)
                    for outcome, seconds, name in found:
                        outcomes[outcome] += 1
                        slowest = max(slowest, (seconds, name))
                        done += 1
                    rate = done / (time.monotonic() - started)
                    print(
                        f"{done} of {count}, {rate:.0f} a second, {(count - done) / rate:.0f} s "
                        f"to go, slowest {slowest[1]} in {slowest[0]:.1f} s",
                        flush=True,
                    )
    for outcome, number in outcomes.most_common():
        print(f"{number:8d} {outcome}")
    assert slowest[0] < LIMITS["video_timeout"] + 10, slowest


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
