"""`_gates.parquet`: what a run's gate found, for the history of checks over many runs."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import RunSummary
from paliflow.configs.schema import GATES

CHECKS = "_gates.parquet"


def write_checks(summary: RunSummary) -> None:
    """Writes what a run's manifest says of its checks and its release in place of an earlier file.

    Unlike the manifest, the file outlives a run that is started over.
    """
    release = summary.released
    rows = [
        {
            **check.model_dump(exclude={"name"}),
            "check": check.name,
            "judged": summary.finished,
            "released": release and release.when,
            "why": release and release.why,
        }
        for check in summary.checks
    ]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, GATES), content)
    storage.overwrite(f"{summary.location}/{CHECKS}", io.BytesIO(content.getvalue()))


def read_checks(run: str) -> list[dict[str, Any]]:
    """The rows of a run's file; empty if it has no gate, or is not finished."""
    try:
        content = storage.read_bytes(f"{run}/{CHECKS}")
    except FileNotFoundError:
        return []
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return rows
