"""The actor: takes shards, samples frames ahead, writes them as images, commits parts."""

import io
import posixpath
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

from paliflow import storage
from paliflow.configs import ExtractSpec
from paliflow.configs.base import brief
from paliflow.configs.schema import FRAMES
from paliflow.jobs.fleet.cluster import core_share
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult
from paliflow.jobs.fleet.work_counter import WorkCounter
from paliflow.jobs.media.decoding import SampledFramesTask
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import max_concurrent_reads, sparing, task_reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.parts import about_without_model, commit_part
from paliflow.jobs.runs.plan import Item, Plan, read_shard
from paliflow.jobs.safety.checking import face_finder

if TYPE_CHECKING:
    from paliflow.jobs.safety.faces import Faces

_AHEAD = 32
"""Encoded frames that wait to be written."""
_WRITERS = 8
_SUFFIXES = {"jpeg": "jpg", "png": "png"}


class Extractor:
    """Does shards of an extraction; a threaded actor, a `ShardWorker`."""

    def __init__(self, spec: ExtractSpec, run: str, plan: Plan) -> None:
        """Keeps what it is told."""
        self._spec, self._run, self._plan = spec, run, plan
        self._turn = threading.Lock()  # of the shard whose frames are taken
        self._done = WorkCounter()

    def load(self) -> tuple[tuple[str, str], ...]:
        """Makes ready what blurs faces, if they are to be blurred.

        Raises:
            SpecError: it is not installed.
        """
        assert self._faces or not self._spec.redact.faces
        return ()

    @cached_property
    def _faces(self) -> "Faces | None":
        return face_finder(self._spec.redact)

    def heartbeat(self) -> Heartbeat:
        """Says how far it is."""
        return self._done.heartbeat()

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        """Writes the frames of a shard and commits its part.

        Args:
            shard: of the plan.
            quarantined: inputs not to touch, by their place in the shard, and why.
        """
        items = read_shard(self._run, self._plan, shard)
        rows = self._extract(dict(enumerate(items)), shard, quarantined or {})
        wrong = [[row["error"] for row in own if row["status"] == "error"] for own in rows]
        reasons = tuple(errors[0] for errors in wrong if errors)
        about = about_without_model(self._spec, len(items), len(reasons))
        flat = [row for own in rows for row in own]
        commit_part(self._run, shard, flat, about, FRAMES)
        return ShardResult(len(items), reasons)

    def probe(self, shard: int, place: int) -> None:
        """Does one input of a shard, to see whether it kills; what it writes is written again."""
        self._extract({place: read_shard(self._run, self._plan, shard)[place]}, shard, {})

    def _extract(
        self, items: Mapping[int, Item], shard: int, quarantined: Mapping[int, str]
    ) -> list[list[dict[str, Any]]]:
        """The rows of each item, by its place in the shard, once their images are written."""
        untouched = {items[place]: reason for place, reason in quarantined.items()}
        places = iter(items.items())
        place, item = -1, None
        rows: list[list[dict[str, Any]]] = []
        ahead = self._read_ahead(items.values(), untouched)
        with closing(ahead), self._turn, ThreadPoolExecutor(_WRITERS) as writers:
            images = _ImageWriter(self._run, writers)
            for source in ahead:
                while source.item is not item:
                    place, item = next(places)
                    rows.append([])
                name = None
                if source.thumbnail:
                    # An item's n-th image is always the same, whatever becomes of other items: who
                    # does a shard again, even beside another, writes what is there already.
                    name = f"frames/{shard:05d}/{place:05d}-{len(rows[-1]):06d}"
                    name += f".{_SUFFIXES[self._spec.format]}"
                    images.write(name, source.thumbnail)
                rows[-1].append(_row(source, name))
                self._done.answered(len(rows[-1]) == 1)
            images.finish()
        return rows

    def _read_ahead(self, items: Iterable[Item], untouched: Mapping[Item, str]) -> ReadAhead:
        """Starts to sample frames, which come encoded in place of inputs' thumbnails."""
        spec, cores = self._spec, core_share(self._spec)
        task = SampledFramesTask(
            spec=spec,
            format=spec.format,
            quality=spec.quality,
            longest_side=spec.longest_side,
            square_pixels=spec.square_pixels,
        )
        read_item = task_reader(task, spec, cores)

        def read(item: Item) -> Iterable[Input | None]:
            return map(self._redacted, read_item(item))

        readers = max_concurrent_reads(spec.video, cores)
        spared = sparing(read, untouched)
        return ReadAhead(spared, items, _AHEAD, spec.read_timeout, readers, self._done.move)

    def _redacted(self, source: Input | None) -> Input | None:
        """A frame without faces, if the spec wants that."""
        if not self._faces or source is None or not source.thumbnail:
            return source
        kind, quality = self._spec.format, self._spec.quality
        image, _ = self._faces.blurred(source.thumbnail, kind=kind, quality=quality)
        return source._replace(thumbnail=image)


class _ImageWriter:
    """Writes images to a run's folder in threads, of which some are behind."""

    def __init__(self, run: str, writers: ThreadPoolExecutor) -> None:
        self._run, self._writers = run, writers
        self._writing: deque[Future[None]] = deque()

    def write(self, name: str, image: bytes) -> None:
        """Begins to write an image; waits for an earlier one where too many are behind."""
        uri = posixpath.join(self._run, name)
        self._writing.append(self._writers.submit(storage.overwrite, uri, io.BytesIO(image)))
        if len(self._writing) > _AHEAD:
            self._writing.popleft().result()

    def finish(self) -> None:
        """Waits for all."""
        for each in self._writing:
            each.result()


def _row(source: Input, image: str | None) -> dict[str, Any]:
    """By the columns of `FRAMES`."""
    item, moment = source.item, source.moment
    return {
        "image": image,
        "source_uri": item.uri,
        "source_version": item.version,
        "frame_index": moment and moment.frame_index,
        "timestamp_s": moment and moment.timestamp_s,
        "width": source.width,
        "height": source.height,
        "frame_distance": moment and moment.frame_distance,
        "pixel_aspect": moment and moment.pixel_aspect,
        "id": item.id,
        "metadata": item.metadata,
        "status": "error" if source.error else "ok",
        "error": source.error and brief(source.error),
        "note": moment and moment.note and brief(moment.note),
    }
