"""`_safety.parquet` of an annotation: what filters removed, changed, flagged or did not score."""

import tempfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import RunSummary
from paliflow.configs.schema import AUDIT
from paliflow.jobs.runs.outputs import row_files
from paliflow.jobs.safety.selection import AUDIT_TABLE

_ROWS = 8192


def write_audit(summary: RunSummary) -> None:
    """Writes the table beside a finished run's manifest; it follows from the run's rows alone."""
    with tempfile.TemporaryFile() as file:
        with pq.ParquetWriter(pa.PythonFile(file, mode="w"), AUDIT) as out:
            for told in _told(summary):
                out.write_table(pa.Table.from_pylist(told, AUDIT))
        storage.overwrite(f"{summary.location}/{AUDIT_TABLE}", file)


def _told(summary: RunSummary) -> Iterator[list[dict[str, Any]]]:
    columns = ["source_uri", "id", "source_sha256", "prompt", "status", "safety"]
    for uri in row_files(summary):
        with storage.open_binary(uri) as file:
            for batch in pq.ParquetFile(file).iter_batches(_ROWS, columns=columns):
                yield [
                    {
                        "image": row["source_uri"],
                        "id": row["id"],
                        "prompt": row["prompt"],
                        "source_sha256": row["source_sha256"],
                        "kept": row["status"] != "filtered",
                        **verdict,
                    }
                    for row in batch.to_pylist()
                    for verdict in row["safety"] or ()
                    if verdict["action"] != "pass"
                ]
