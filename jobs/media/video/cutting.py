"""Long videos to pieces, when a run is planned: what several actors can do at once."""

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from itertools import islice

from paliflow.configs.run import InputsSpec
from paliflow.jobs.media.decoder_pool import Clock, DecoderPool, decoder_pool
from paliflow.jobs.media.decoding import LengthTask
from paliflow.jobs.media.pixels import Length
from paliflow.jobs.media.reading import Stored
from paliflow.jobs.media.video.sampling import exact, unit_s
from paliflow.jobs.runs.item import Item

_OPENED = 16
"""Videos whose headers are read at once."""
_MOST = 10_000
"""Pieces of a video, whatever it says of itself."""


def pieces(items: Iterable[Item], spec: InputsSpec) -> Iterator[Item]:
    """The videos in order, long ones as pieces of about `segment_s` seconds.

    Whole stay those whose file has no table of frames, or cannot be read: whoever annotates it
    says why. There are never more pieces than frames.
    """
    video = spec.video
    assert video
    if not video.segment_s or unit_s(video, exact(1)) is None:
        yield from items
        return
    remaining = iter(items)
    pool = decoder_pool(spec.decoder_memory, os.cpu_count() or 1)
    with ThreadPoolExecutor(_OPENED) as threads:
        while some := list(islice(remaining, 4 * _OPENED)):
            for own in threads.map(partial(_pieces, spec=spec, pool=pool), some):
                yield from own


def _pieces(item: Item, spec: InputsSpec, pool: DecoderPool) -> list[Item]:
    video = spec.video
    assert video
    if not item.uri or item.edit:
        return [item]
    if item.frames is not None:
        assert video.frame_rate
        frames, seconds = len(item.frames), len(item.frames) / exact(video.frame_rate)
    else:
        clock = Clock(spec.read_timeout, spec.video_timeout)
        found = pool.results(LengthTask(spec=spec), item, Stored(spec.https_hosts), clock)
        length = next((each.length for each in found if each), None) or Length(0, 0, 1)
        frames, seconds = length.frames, Fraction(length.numerator, length.denominator)
    if not frames or not seconds:  # as of files that say that all their frames are shown at once
        return [item]
    unit = unit_s(video, seconds / frames)
    assert video.segment_s
    assert unit
    each = max(1, round(exact(video.segment_s) / unit))
    count = min(math.ceil(seconds / unit / each), frames, _MOST)
    if count < 2:
        return [item]
    each = max(each, math.ceil(seconds / unit / count))
    bounds = range(0, count * each, each)
    return [
        item._replace(first=first, last=None if n == count - 1 else first + each)
        for n, first in enumerate(bounds)
    ]
