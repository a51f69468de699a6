"""What each local filter takes of one core, and the search for near hashes: time and memory.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m paliflow.benchmarks.safety [QUERIES]

The times are processor time, so that others on the machine count little.
"""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.datasets import load_sample_images

from paliflow.configs import NsfwFilter, PersonalDataFilter, QualityFilter, ToxicityFilter
from paliflow.jobs.safety.checking import image_filter, text_filter
from paliflow.jobs.safety.hashing import image_hash
from paliflow.jobs.safety.near import NearIndex
from paliflow.jobs.safety.protocol import VIEW, View

_TEXTS = 256
_IMAGES = 16
_KNOWN = 100_000
_CAPTION = "a man in a red jacket rides a wave on a long white surfboard"


def main() -> None:
    """Prints a line for each filter, then one for the index."""
    queries = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    picture = load_sample_images().images[0][:VIEW, :VIEW]
    views = [View(np.ascontiguousarray(picture), 640, 427)] * _IMAGES
    texts = [_CAPTION] * _TEXTS
    phones = [f"{_CAPTION}, call 650-253-0000"] * _TEXTS
    for settings in (QualityFilter(), NsfwFilter()):
        images = image_filter(settings)
        _tell(settings.filter, _IMAGES, partial(images.score, views))
    _tell("hash", _IMAGES, lambda: [image_hash(view.pixels) for view in views])
    for name, words in (("a caption", texts), ("a caption with a phone number", phones)):
        found = text_filter(PersonalDataFilter())
        _tell(f"personal_data, {name}", _TEXTS, partial(found.score, words))
    toxicity = text_filter(ToxicityFilter())
    _tell("toxicity, a caption", _TEXTS, partial(toxicity.score, texts))

    draw = np.random.default_rng(0)
    index = NearIndex()
    index.add(draw.integers(0, 2**64, (_KNOWN, 4), np.uint64))
    wanted = draw.integers(0, 2**64, (queries, 4), np.uint64)
    _tell(f"near hash among {_KNOWN:,}", queries, partial(index.nearest, wanted))


def _tell(name: str, items: int, work: Callable[[], object]) -> None:
    work() if items <= _TEXTS else None  # the first time loads and warms up
    began = time.process_time()
    work()
    milliseconds = (time.process_time() - began) / items * 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {milliseconds:.3f} ms, {1000 / milliseconds:,.0f} a second; {peak:.0f} MB peak")


if __name__ == "__main__":
    main()
