"""Compaction: a finished run's many parts become few files, whoever crashes or does it too."""

import io
import json
import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import chain, count
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from paliflow import storage
from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.base import SpecError
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs.runs.outputs import row_files, write_manifest
from paliflow.jobs.runs.parts import REASONS

FILE_BYTES = 256 * 2**20
_READERS = 8
_FOLDER = "_compact"
"""Readers of Parquet folders skip names that start with an underscore."""
_DECISION = "decision.json"
_NAMES = TypeAdapter(list[str])
_LEFTOVER = re.compile(rf"part-\d+\.parquet|{_FOLDER}/(?!{re.escape(_DECISION)}).*")


class Piece(NamedTuple):
    """The rows of one shard in a file of rows."""

    shard: int
    rows: int
    committed: datetime


def compact(summary: RunSummary) -> RunSummary:
    """Rewrites a finished run into files of about 256 MB and deletes its parts.

    It may be killed at any point, repeated, and done by several at once. Each compactor writes its
    files below `_compact/`. The first to have written all of them decides, by creating one more
    that lists them; nothing is deleted before. What was decided, whoever is there copies in place,
    then names in the manifest, then deletes what the manifest does not name.

    Memory holds the parts of one row group; the disk, one file.

    Returns:
        The summary with `files`.

    Raises:
        FileNotFoundError: a part is missing; nothing has changed for readers.
        SpecError: the run is quarantined.
        RuntimeError: the parts do not have as many rows as the manifest says; likewise.
    """
    run = summary.location
    if summary.quarantined:
        raise SpecError(f"{run} is quarantined; `paliflow release` it first")
    decided = _decided(run)
    staged = _decide(summary) if decided is None else decided
    if not staged:  # there are no rows, or the run was superseded
        return summary
    files = _names(len(staged))
    with ThreadPoolExecutor(_READERS) as pool:
        if summary.files != files:
            rows = sum(pool.map(partial(_publish, run), staged, files))
            if rows != summary.rows:
                raise RuntimeError(
                    f"{run} has {summary.rows} rows and its compacted files {rows}; it stays as it "
                    f"was: delete them and {run}/{_FOLDER}/ before you try again"
                )
            summary = summary.model_copy(update={"files": files})
            write_manifest(summary, again=True)
        uris = (entry.uri for entry in storage.list_files(run))
        list(
            pool.map(
                storage.delete,
                (uri for uri in uris if _LEFTOVER.fullmatch(uri.removeprefix(f"{run}/"))),
            )
        )
    return summary


def stop_compaction(run: str) -> tuple[str, ...]:
    """Keeps a run's rows from being compacted, by whoever does it now or comes later.

    Returns:
        The names of the files in the run's folder that a compaction which was decided before
        writes or has written; none if there was none.
    """
    decision = f"{run}/{_FOLDER}/{_DECISION}"
    storage.commit_if_absent(decision, io.BytesIO(json.dumps([]).encode()))
    return _names(len(_decided(run) or []))


def _names(files: int) -> tuple[str, ...]:
    """What the files of a compacted run are called."""
    return tuple(f"part-{k:05d}-of-{files:05d}.parquet" for k in range(files))


def pieces(footer: pq.FileMetaData) -> list[Piece]:
    """Which shards' rows a file holds, in order: one in a part, several after compaction."""
    said = footer.metadata
    if b"paliflow.parts" in said:
        parts = json.loads(said[b"paliflow.parts"])
        return [Piece(shard, rows, datetime.fromisoformat(time)) for shard, rows, time in parts]
    committed = datetime.fromisoformat(said[b"paliflow.committed"].decode())
    return [Piece(int(said[b"paliflow.shard"]), footer.num_rows, committed)]


def _decided(run: str) -> list[str] | None:
    """The names in `_compact/` that make up the compacted run, if that is decided."""
    uri = f"{run}/{_FOLDER}/{_DECISION}"
    try:
        return _NAMES.validate_json(storage.read_bytes(uri))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise SpecError(f"{uri} is broken; delete {run}/{_FOLDER}/ and try again") from None


def _decide(summary: RunSummary) -> list[str]:
    run = summary.location
    try:
        content = io.BytesIO(json.dumps(list(_stage(summary))).encode())
        storage.commit_if_absent(f"{run}/{_FOLDER}/{_DECISION}", content)
    except FileNotFoundError:
        # Another may have decided, and deleted the parts, while they were being read here.
        if _decided(run) is None:
            raise
    return _decided(run) or []


def _stage(summary: RunSummary) -> Iterator[str]:
    """Writes all rows to files of this attempt's own; yields their names."""
    attempt = uuid.uuid4().hex
    spec = AnnotateSpec.parse(summary.spec)
    parts = _read(row_files(summary))
    for number in count():
        if (first := next(parts, None)) is None:
            return
        name = f"{attempt}-{number:05d}.parquet"
        with tempfile.TemporaryFile() as file:
            _write(file, first, parts, spec.row_group_size, spec.compression_level)
            storage.commit_if_absent(f"{summary.location}/{_FOLDER}/{name}", file)
        yield name


def _read(uris: Sequence[str]) -> Iterator[pq.ParquetFile]:
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(uris), _READERS):
            for data in pool.map(storage.read_bytes, uris[start : start + _READERS]):
                yield pq.ParquetFile(pa.BufferReader(data))


def _write(
    file: BinaryIO,
    first: pq.ParquetFile,
    others: Iterator[pq.ParquetFile],
    row_group_size: int,
    compression_level: int,
) -> None:
    """Writes whole parts until the file is large enough."""
    # A run that was resumed by a newer version has parts with more columns than others.
    schema = pa.unify_schemas(
        [ANNOTATIONS, first.schema_arrow], promote_options="permissive"
    ).remove_metadata()
    footers: list[pq.FileMetaData] = []
    waiting: list[pa.Table] = []
    level = {"compression": "zstd", "compression_level": compression_level}
    with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema, **level) as writer:

        def flush() -> None:
            table = pa.concat_tables([schema.empty_table(), *waiting], promote_options="permissive")
            groups = max(1, table.num_rows // row_group_size)
            writer.write_table(table, row_group_size=-(-table.num_rows // groups) or None)
            waiting.clear()

        for part in chain([first], others):
            footers.append(part.metadata)
            waiting.append(part.read())
            if sum(table.num_rows for table in waiting) >= row_group_size:
                flush()
                if file.tell() >= FILE_BYTES:
                    break
        if waiting:
            flush()
        writer.add_key_value_metadata(_about(footers))


def _about(footers: Sequence[pq.FileMetaData]) -> dict[str, str]:
    """What a compacted file says of itself: what its parts said, counted together."""
    said = [footer.metadata for footer in footers]
    last = {key.decode(): value.decode() for key, value in said[-1].items()}
    reasons: Counter[str] = Counter()
    for each in said:
        reasons.update(json.loads(each[b"paliflow.reasons"]))
    held = [piece for footer in footers for piece in pieces(footer)]
    kept = {key: last[key] for key in last if key.startswith("paliflow.")}
    del kept["paliflow.shard"]
    flagged: Counter[str] = Counter()
    for each in said:
        flagged.update(json.loads(each.get(b"paliflow.flagged", b"{}")))
    sums = {
        f"paliflow.{name}": str(sum(int(each[f"paliflow.{name}".encode()]) for each in said))
        for name in ("inputs", "failed", "errors")
    }
    return kept | {
        **sums,
        "paliflow.reasons": json.dumps(dict(reasons.most_common(REASONS))),
        "paliflow.flagged": json.dumps(dict(flagged)),
        "paliflow.committed": max(piece.committed for piece in held).isoformat(),
        "paliflow.parts": json.dumps([(p.shard, p.rows, p.committed.isoformat()) for p in held]),
    }


def _publish(run: str, staged: str, file: str) -> int:
    """Copies a decided file in place; returns how many rows are there."""
    try:
        storage.copy_if_absent(f"{run}/{_FOLDER}/{staged}", f"{run}/{file}")
    except FileNotFoundError:
        # Another compactor has published it and tidied up.
        if not storage.is_file(f"{run}/{file}"):
            raise
    with storage.open_binary(f"{run}/{file}") as content:
        rows: int = pq.read_metadata(content).num_rows
        return rows
