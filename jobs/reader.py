"""How a spec's items are read: images each as one input, videos as their frames or clips."""

import os
from collections.abc import Callable, Iterable
from functools import partial

from paliflow.configs.run import ModelSpec
from paliflow.jobs.plan import Item
from paliflow.jobs.reading import Input, read_input
from paliflow.jobs.video.reading import read_video

Read = Callable[[Item], Iterable[Input | None]]
"""The inputs of an item in order; None is a sign of life."""
_CORES_A_VIDEO = 8
"""A decoder has threads of its own, and scales no further."""
_IMAGES_AT_ONCE = 8


def reader(spec: ModelSpec, size: int, thumbnail: int | None = None) -> Read:
    """Reads items for a network of so many pixels.

    Args:
        spec: what it says of videos and of limits.
        size: the network's, in pixels.
        thumbnail: pixels of the longer side of thumbnails at most; None makes none.
    """
    if spec.video:
        return partial(read_video, spec=spec, size=size, thumbnail=thumbnail)
    read = partial(
        read_input,
        size=size,
        max_pixels=spec.max_pixels,
        thumbnail=thumbnail,
        https_hosts=spec.https_hosts,
        upright=spec.exif == "apply",
    )
    return lambda item: (read(item),)


def at_once(spec: ModelSpec) -> int:
    """Items that one process reads at the same time."""
    if spec.video:
        return max(2, (os.cpu_count() or 1) // _CORES_A_VIDEO)
    return _IMAGES_AT_ONCE
