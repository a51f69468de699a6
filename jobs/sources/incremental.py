"""Incremental runs: which items no earlier run of the output has answered, on disk, not memory."""

import hashlib
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.schema import ANNOTATIONS, PLAN
from paliflow.jobs.media.reading import read_content
from paliflow.jobs.runs.outputs import finished_runs, row_files
from paliflow.jobs.runs.plan import Item, to_items, to_table

_HISTORY = pa.schema(
    [
        ANNOTATIONS.field(name)
        for name in ("source_uri", "source_sha256", "source_version", "prompt", "status")
    ]
    + [("run", pa.int32())]
)
# One step after the other, each of which spills: together they would fight for the memory.
_JOIN = """
    CREATE TABLE answers AS
    SELECT file_row_number AS place, prompt, source_version AS version, source_sha256 AS sha256
    FROM read_parquet($items, file_row_number = true) JOIN history
    ON uri = source_uri AND list_contains(coalesce(prompts, $prompts), prompt)
    WHERE status = 'ok' AND source_sha256 IS NOT NULL
"""
# Videos are known by their versions, and answered where a run has no error of theirs.
_JOIN_VIDEOS = """
    CREATE TABLE answers AS
    SELECT file_row_number AS place, prompt, source_version AS version, '' AS sha256
    FROM read_parquet($items, file_row_number = true) JOIN history
    ON uri = source_uri AND list_contains(coalesce(prompts, $prompts), prompt)
    WHERE source_version IS NOT NULL
    GROUP BY place, prompt, source_version, run HAVING bool_and(history.status = 'ok')
"""
_SORT = "FROM answers ORDER BY place"
_MEMORY = "256MB"
"""DuckDB's; 192MB are enough for 10^7 items with as many answers."""
_BLOCK = 8192
"""Items or rows of history in memory at once."""
_READERS = 16

_NONE: tuple[int, Iterator["_Answer"]] = (-1, iter(()))


class _Answer(NamedTuple):
    """A row of an earlier run."""

    place: int
    """Of the item, in the order of all."""
    prompt: str
    version: str | None
    sha256: str
    """Both of the content that was asked about."""


def filter_unanswered(
    items: Iterable[Item], spec: AnnotateSpec, checkpoint_sha256: Collection[str]
) -> Iterator[Item]:
    """The items, in order, that earlier runs of the output have not answered; with what is left.

    A prompt about an item is answered if a finished run with the same checkpoint has a row of
    that prompt and URI with status `ok`, and the content is the same: by its version, or where
    that is unknown or another, by the digest of what is read now. An item that has only some of
    its prompts answered keeps the others. Runs whose prompts have other choices answer none.

    Args:
        items: streamed to a temporary file.
        spec: says where the output is, what is asked, and of which hosts.
        checkpoint_sha256: digests of the weights that would answer now, as `digests_of`.
    """
    now = spec.model_dump(mode="json")
    earlier = [
        run
        for run in finished_runs(spec.output)
        if run.checkpoint_sha256 in checkpoint_sha256
        and run.spec.get("video") == now["video"]
        and _with_choices(run.spec) == _with_choices(now)
    ]
    if not earlier:
        yield from items
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(_READERS) as pool,
        duckdb.connect(
            f"{folder}/answers",
            config={"memory_limit": _MEMORY, "threads": 2, "temp_directory": folder},
        ) as database,
    ):
        candidates = Path(folder) / "items.parquet"
        remaining = iter(items)
        with pq.ParquetWriter(candidates, PLAN, compression="zstd") as file:
            while block := list(islice(remaining, _BLOCK)):
                file.write_table(to_table(block))
        history = pa.RecordBatchReader.from_batches(_HISTORY, _history(earlier, pool))
        database.execute("SET enable_progress_bar = false")
        database.register("history", history)
        values = {"items": str(candidates), "prompts": list(spec.texts)}
        database.execute(_JOIN_VIDEOS if spec.video else _JOIN, values)
        answers = _answers(database.sql(_SORT).to_arrow_reader(_BLOCK))
        pairs = _paired(_read(candidates), answers)
        while some := list(islice(pairs, _BLOCK)):
            yield from _unanswered(some, spec, pool)


def _with_choices(spec: Mapping[str, Any]) -> list[Any]:
    """A spec's prompts that are more than text, in an order of their own."""
    return sorted((p for p in spec.get("prompts", ()) if not isinstance(p, str)), key=repr)


def _unanswered(
    pairs: Sequence[tuple[Item, list[_Answer]]], spec: AnnotateSpec, pool: ThreadPoolExecutor
) -> Iterator[Item]:
    digests = [_digest_by_version(item, answers) for item, answers in pairs]
    unread = [
        n
        for n, (_, answers) in enumerate(pairs)
        if answers and digests[n] is None and not spec.video
    ]
    read = pool.map(lambda n: _digest_by_reading(pairs[n][0], spec.https_hosts), unread)
    for n, digest in zip(unread, read, strict=True):
        digests[n] = digest
    for (item, answers), digest in zip(pairs, digests, strict=True):
        asked = spec.texts if item.prompts is None else item.prompts
        answered = {answer.prompt for answer in answers if answer.sha256 == digest}
        left = [place for place, prompt in enumerate(asked) if prompt not in answered]
        if len(left) == len(asked):
            yield item
        elif left:
            asks = item.asks and tuple(item.asks[place] for place in left)
            yield item._replace(prompts=tuple(asked[place] for place in left), asks=asks)


def _digest_by_version(item: Item, answers: Iterable[_Answer]) -> str | None:
    known = (answer.sha256 for answer in answers if answer.version == item.version)
    return next(known, None) if item.version else None


def _digest_by_reading(item: Item, https_hosts: tuple[str, ...]) -> str | None:
    try:
        return hashlib.sha256(read_content(item, https_hosts)).hexdigest()
    except (OSError, ValueError):
        return None  # whoever annotates it says why


def _paired(
    items: Iterable[Item], answers: Iterable[_Answer]
) -> Iterator[tuple[Item, list[_Answer]]]:
    groups = groupby(answers, lambda answer: answer.place)
    place, known = next(groups, _NONE)
    for number, item in enumerate(items):
        if number == place:
            yield item, list(known)
            place, known = next(groups, _NONE)
        else:
            yield item, []


def _read(candidates: Path) -> Iterator[Item]:
    for batch in pq.ParquetFile(candidates).iter_batches(_BLOCK):
        yield from to_items(batch)


def _answers(rows: pa.RecordBatchReader) -> Iterator[_Answer]:
    for batch in rows:
        yield from map(_Answer._make, zip(*batch.to_pydict().values(), strict=True))


def _history(runs: Iterable[RunSummary], pool: ThreadPoolExecutor) -> Iterator[pa.RecordBatch]:
    """The rows of runs: many small parts at once, the large files of a compacted run in turn."""
    for number, run in enumerate(runs):
        files = row_files(run)
        read = partial(_batches, number)
        if run.files:
            for uri in files:
                yield from read(uri)
        else:
            for start in range(0, len(files), _READERS):
                parts = pool.map(lambda uri, read=read: [*read(uri)], files[start:][:_READERS])
                yield from chain.from_iterable(parts)


def _batches(run: int, uri: str) -> Iterator[pa.RecordBatch]:
    """Columns that an older version did not write are null."""
    with storage.open_binary(uri) as file:
        for batch in pq.ParquetFile(file).iter_batches(_BLOCK, columns=_HISTORY.names):
            known = {name: batch.column(name) for name in batch.schema.names}
            known["run"] = pa.array(np.full(len(batch), run, np.int32))
            yield pa.record_batch(
                [known.get(name, pa.nulls(len(batch), pa.string())) for name in _HISTORY.names],
                schema=_HISTORY,
            )
