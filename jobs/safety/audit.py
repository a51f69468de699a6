"""`_safety.parquet` read back: what was removed or changed, and which images are near which."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from paliflow import storage
from paliflow.jobs.safety.selection import AUDIT_TABLE

_ROWS = 8192
_NEAR = re.compile(r"(\d+) of 256 bits differ from (.+)", re.DOTALL)


class Pair(NamedTuple):
    """An image and the earlier or excluded one that it is near to."""

    image: str
    near: str
    bits: int
    kept: bool


def audit_rows(location: str) -> Iterator[dict[str, Any]]:
    """The rows of a finished run's audit, in order."""
    with storage.open_binary(f"{location}/{AUDIT_TABLE}") as file:
        for batch in pq.ParquetFile(file).iter_batches(_ROWS):
            yield from batch.to_pylist()


def near_of(row: Mapping[str, Any]) -> Pair | None:
    """The pair that a row of the audit tells of, if it does."""
    found = _NEAR.fullmatch(row["reason"] or "") if row["label"] == "duplicate" else None
    return Pair(row["image"], found[2], int(found[1]), row["kept"]) if found else None
