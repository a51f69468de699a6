"""Rows to Parquet parts: one part a shard, created only if absent, telling what it holds."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs import storage

_PART = re.compile(r"part-(\d{5,})\.parquet")


class Part(NamedTuple):
    """What a part's footer says."""

    rows: int
    errors: int
    """Rows with status `error`."""
    checkpoint_sha256: str


def commit_part(
    run: str, shard: int, rows: Sequence[Mapping[str, Any]], about: Mapping[str, str]
) -> bool:
    """Writes the rows of one shard as its part.

    Args:
        run: the run's folder.
        shard: the part's number.
        rows: by the columns of `ANNOTATIONS`; those left out are null.
        about: what else the file shall say of itself; keys get the prefix `paliflow.`. It needs
            `checkpoint_sha256`.

    Returns:
        False if the part was there already; the rows are dropped then.
    """
    errors = sum(row["status"] == "error" for row in rows)
    metadata = {f"paliflow.{key}": text for key, text in about.items()}
    metadata |= {"paliflow.shard": str(shard), "paliflow.errors": str(errors)}
    schema = ANNOTATIONS.with_metadata({**ANNOTATIONS.metadata, **metadata})
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file, compression="zstd")
    return storage.commit_if_absent(part_uri(run, shard), file)


def read_part(run: str, shard: int) -> Part:
    """Reads a part's footer.

    Raises:
        FileNotFoundError: the part is not there.
    """
    with storage.open_binary(part_uri(run, shard)) as file:
        footer = pq.read_metadata(file)
    said = footer.metadata
    return Part(
        footer.num_rows,
        int(said[b"paliflow.errors"]),
        said[b"paliflow.checkpoint_sha256"].decode(),
    )


def present_parts(run: str) -> set[int]:
    """The shards whose parts are there."""
    names = (uri.removeprefix(f"{run}/") for uri in storage.list_files(run))
    return {int(found[1]) for name in names if (found := _PART.fullmatch(name))}


def part_uri(run: str, shard: int) -> str:
    """Where a shard's part lies."""
    return f"{run}/part-{shard:05d}.parquet"
