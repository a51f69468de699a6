"""How a spec's items are read: images each as one input, videos as their frames or clips."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from paliflow.configs.run import InputsSpec, ModelSpec
from paliflow.configs.video import VideoSpec
from paliflow.jobs.media.decoder_pool import Clock, DecoderPool, decoder_pool
from paliflow.jobs.media.decoding import CopyTask, ImageTask, Task, VideoTask
from paliflow.jobs.media.pixels import unreadable
from paliflow.jobs.media.reading import NO_IMAGE, Input, Stored, finished
from paliflow.jobs.runs.item import Item

Read = Callable[[Item], Iterable[Input | None]]
"""The inputs of an item in order; None is a sign of life."""
_CORES_A_VIDEO = 8
"""A decoder has threads of its own, and scales no further."""
_IMAGES_AT_ONCE = 8


def reader(
    spec: ModelSpec,
    size: int,
    thumbnail: int | None = None,
    cores: int | None = None,
    *,
    view: bool = False,
) -> Read:
    """Reads items for a network of so many pixels.

    Args:
        spec: what it says of videos, of limits and of how images are read.
        size: the network's, in pixels.
        thumbnail: pixels of the longer side of thumbnails at most; None makes none.
        cores: as in `task_reader`.
        view: whether images come with what filters see of them; videos' frames never do.
    """
    if spec.video:
        film = VideoTask(spec=spec, size=size, thumbnail=thumbnail, way=spec.decode)
        return task_reader(film, spec, cores)
    task = ImageTask(
        size=size,
        max_pixels=spec.max_pixels,
        thumbnail=thumbnail,
        upright=spec.exif == "apply",
        view=view,
        way=spec.decode,
    )
    return task_reader(task, spec, cores)


def task_reader(task: Task, spec: InputsSpec, cores: int | None = None) -> Read:
    """Reads items in this process and has decoder processes do a task with each.

    Args:
        task: what to make of an item.
        spec: what it says of limits.
        cores: of the host that this process may use; all if not given.
    """
    pool = decoder_pool(spec.decoder_memory, cores or os.cpu_count() or 1)
    return partial(_read, task=task, spec=spec, pool=pool)


def sparing(read: Read, untouched: Mapping[Item, str]) -> Read:
    """Reads items but those that are not to be touched, whose input is an error with the reason."""

    def spared(item: Item) -> Iterable[Input | None]:
        return (Input(item, error=untouched[item]),) if item in untouched else read(item)

    return spared


def max_concurrent_reads(video: VideoSpec | None, cores: int | None = None) -> int:
    """Items that one process reads at the same time, on so many cores."""
    if video:
        return max(2, (cores or os.cpu_count() or 1) // _CORES_A_VIDEO)
    return _IMAGES_AT_ONCE


def _read(item: Item, task: Task, spec: InputsSpec, pool: DecoderPool) -> Iterator[Input | None]:
    if not item.uri:
        yield Input(item, error=NO_IMAGE)
        return
    files = Stored(spec.https_hosts)
    clock = Clock(spec.read_timeout, spec.video_timeout if spec.video else math.inf)
    data = None
    if isinstance(task, ImageTask | CopyTask):
        try:
            with clock.running():
                data = files.read(item)
        except (OSError, ValueError) as error:
            yield Input(item, error=unreadable(error))
            return
    for result in pool.results(task, item, files, clock, data):
        yield None if result is None else finished(item, result, data)
