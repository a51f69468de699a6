"""Long videos to pieces, when a run is planned: what several actors can do at once."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from paliflow.configs.run import ModelSpec
from paliflow.jobs.plan import Item
from paliflow.jobs.video.container import VideoError
from paliflow.jobs.video.reading import opened
from paliflow.jobs.video.sampling import exact, unit_s
from paliflow.jobs.video.stills import Animation

_OPENED = 16
"""Videos whose headers are read at once."""


def pieces(items: Iterable[Item], spec: ModelSpec) -> Iterator[Item]:
    """The videos in order, long ones as pieces of about `segment_s` seconds.

    Whole stay those whose file has no table of frames, or cannot be read: whoever annotates it
    says why.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(_OPENED) as pool:
        while some := list(islice(remaining, 4 * _OPENED)):
            for own in pool.map(partial(_pieces, spec=spec), some):
                yield from own


def _pieces(item: Item, spec: ModelSpec) -> list[Item]:
    video = spec.video
    assert video
    if not video.segment_s or not item.uri or unit_s(video, exact(1)) is None:
        return [item]
    try:
        with opened(item, spec) as source:
            if isinstance(source, Animation) or not source.tabled:
                return [item]
            unit, duration = unit_s(video, source.frame_s), source.measure()
    except (VideoError, OSError, ValueError):
        return [item]
    assert unit is not None
    each = max(1, round(exact(video.segment_s) / unit))
    count = math.ceil(duration / unit / each)
    bounds = range(0, count * each, each)
    if count < 2:
        return [item]
    return [
        item._replace(first=first, last=None if n == count - 1 else first + each)
        for n, first in enumerate(bounds)
    ]
