"""The actor of a filter run: takes shards, reads images, has filters score them, commits parts."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from paliflow.configs import FilterSpec
from paliflow.configs.base import brief
from paliflow.configs.safety import Verdict
from paliflow.configs.schema import FILTERED
from paliflow.jobs.fleet.cluster import core_share
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult
from paliflow.jobs.fleet.work_counter import WorkCounter
from paliflow.jobs.media.decoding import ImageTask
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import max_concurrent_reads, sparing, task_reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.parts import about_without_model, commit_part
from paliflow.jobs.runs.plan import Item, Plan, read_shard
from paliflow.jobs.safety.checking import ImageCheck, TextCheck, outcome
from paliflow.jobs.safety.copies import Copies
from paliflow.jobs.safety.hashing import image_hash
from paliflow.jobs.safety.protocol import VIEW, View

_BATCH = 32
"""Images that filters are given at once."""


class FilterActor:
    """Does shards of a filter run; a threaded actor, a `ShardWorker`."""

    def __init__(self, spec: FilterSpec, run: str, plan: Plan) -> None:
        """Keeps what it is told."""
        self._spec, self._run, self._plan = spec, run, plan
        self._turn = threading.Lock()  # of the shard whose images are taken
        self._done = WorkCounter()

    def load(self) -> tuple[tuple[str, str], ...]:
        """Makes the filters.

        Raises:
            SpecError: what one of them needs is not installed.
        """
        self._images, self._texts = ImageCheck(self._spec.filters), TextCheck(self._spec.filters)
        self._copies = Copies(self._spec, self._run) if self._spec.redact else None
        return ()

    def heartbeat(self) -> Heartbeat:
        """Says how far it is."""
        return self._done.heartbeat()

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        """Scores a shard's inputs and commits its part.

        Args:
            shard: of the plan.
            quarantined: inputs not to touch, by their place in the shard, and why.
        """
        items = read_shard(self._run, self._plan, shard)
        untouched = {items[place]: reason for place, reason in (quarantined or {}).items()}
        rows = self._scored(items, untouched, shard)
        reasons = tuple(row["error"] for row in rows if row["status"] == "error")
        about = about_without_model(self._spec, len(items), len(reasons))
        commit_part(self._run, shard, rows, about, FILTERED)
        return ShardResult(len(items), reasons)

    def probe(self, shard: int, place: int) -> None:
        """Does one input of a shard and forgets it, to see whether it kills."""
        self._scored([read_shard(self._run, self._plan, shard)[place]], {})

    def _scored(
        self, items: Sequence[Item], untouched: Mapping[Item, str], shard: int | None = None
    ) -> list[dict[str, Any]]:
        """The row of each item, in order; of a shard copies are written, if the spec has any."""
        spec, cores = self._spec, core_share(self._spec)
        task = ImageTask(
            size=VIEW, max_pixels=spec.max_pixels, upright=spec.exif == "apply", way="fast"
        )
        read = sparing(task_reader(task, spec, cores), untouched)
        rows: list[dict[str, Any]] = []
        readers = max_concurrent_reads(None, cores)
        ahead = ReadAhead(read, items, 2 * _BATCH, spec.read_timeout, readers, self._done.move)
        with closing(ahead), self._turn:
            inputs = iter(ahead)
            while batch := list(islice(inputs, _BATCH)):
                done = self._rows(batch)
                if self._copies and shard is not None:
                    self._copies.write(batch, done, f"{shard:05d}", len(rows))
                rows += done
                self._done.answered(len(batch))
        return rows

    def _rows(self, batch: Sequence[Input]) -> list[dict[str, Any]]:
        views = [None if source.pixels is None else _view(source) for source in batch]
        seen = iter(self._images.verdicts([view for view in views if view]))
        rows = [_row(source, self._spec.text_columns) for source in batch]
        verdicts = [next(seen) if view else [] for view in views]
        for row, view in zip(rows, views, strict=True):
            if view:
                row["image_hash"] = image_hash(view.pixels)
                row["pixels_sha256"] = _digest(view)
        for number, column in enumerate(self._spec.text_columns):
            self._check_column(column, [row["texts"][number] for row in rows], verdicts)
        for row, own in zip(rows, verdicts, strict=True):
            row["safety"] = [verdict._asdict() for verdict in own]
            row["status"] = "error" if row["error"] else outcome(own)
        return rows

    def _check_column(
        self, column: str, texts: Sequence[dict[str, Any]], verdicts: Sequence[list[Verdict]]
    ) -> None:
        """Adds the verdicts on a column's texts, and puts in place what may be kept of each."""
        for each, own in zip(texts, verdicts, strict=True):
            if not isinstance(each["text"], str | None):
                why = f"the column holds a {type(each['text']).__name__}, not text"
                own.append(Verdict("text", "1", column, "text", None, "unscored", why))
        held = [number for number, each in enumerate(texts) if isinstance(each["text"], str)]
        checked = self._texts.verdicts([texts[number]["text"] for number in held], column)
        for each in texts:
            if not isinstance(each["text"], str | None):
                each["text"] = json.dumps(each["text"], ensure_ascii=False)
        for number, (found, redacted) in zip(held, checked, strict=True):
            verdicts[number].extend(found)
            texts[number]["text"] = redacted


def _view(source: Input) -> View:
    assert source.pixels is not None
    assert source.width is not None
    assert source.height is not None
    return View(source.pixels, source.width, source.height)


def _digest(view: View) -> bytes:
    """Of what an image looks like, whatever file it is in."""
    digest = hashlib.sha256(f"{view.width} {view.height} ".encode())
    digest.update(view.pixels.tobytes())
    return digest.digest()


def _row(source: Input, text_columns: Sequence[str]) -> dict[str, Any]:
    """By the columns of `FILTERED`, without what filters say."""
    item = source.item
    carried = json.loads(item.metadata) if item.metadata else {}
    texts = [{"column": name, "text": carried.get(name)} for name in text_columns]
    carried = {name: value for name, value in carried.items() if name not in text_columns}
    return {
        "image": item.uri,
        "id": item.id,
        "metadata": json.dumps(carried, ensure_ascii=False) if carried else None,
        "texts": texts,
        "width": source.width,
        "height": source.height,
        "source_sha256": source.sha256,
        "source_version": item.version,
        "error": source.error and brief(source.error),
    }
