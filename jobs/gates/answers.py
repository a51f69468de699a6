"""What a run's answers are compared by: labels, lengths and confidences of a sample of its rows."""

from collections.abc import Collection, Hashable
from itertools import islice
from typing import Any

import pyarrow.parquet as pq

from paliflow import storage
from paliflow.jobs.runs.outputs import evenly_spaced

_STRETCHES = 64
_ROWS = 1024
"""Read are at most so many stretches of rows, of at most so many rows each."""
IMAGES = 2000
"""Of a run at most; more would find differences that matter to nobody."""
_COLUMNS = (
    *("source_uri", "task", "prompt", "text", "detections", "token_count", "mean_logprob"),
    *("confidence", "status", "name"),
)
Sample = dict[str, list[tuple[Hashable, Any]]]


def sample(files: list[str], prompts: Collection[str]) -> Sample:
    """By what is compared, such as `labels of 'caption en'`, pairs of an image and a value.

    Prompts that have names go by these, so that another prompt under an old name is noticed.

    Args:
        files: of a run's rows, of which stretches are read that are spread over them.
        prompts: that are compared one by one; others, such as each row's own, are by their tasks.
    """
    chosen = evenly_spaced(files, _STRETCHES)
    rows = [row for uri in chosen for row in _rows(uri, _STRETCHES // len(chosen))]
    images = set(evenly_spaced(list(dict.fromkeys(row["source_uri"] for row in rows)), IMAGES))
    found: Sample = {}
    for row in rows:
        if row["source_uri"] in images and row["status"] in ("ok", "unscored"):
            known = row["name"] or (row["prompt"] if row["prompt"] in prompts else None)
            asked = repr(known) if known else f"any {row['task']}"
            for what, value in _values(row):
                found.setdefault(f"{what} of {asked}", []).append((row["source_uri"], value))
    return found


def _rows(uri: str, stretches: int) -> list[dict[str, Any]]:
    """The beginnings of some row groups of a file."""
    rows: list[dict[str, Any]] = []
    with storage.open_binary(uri) as file:
        table = pq.ParquetFile(file)
        present = [name for name in _COLUMNS if name in table.schema_arrow.names]
        for group in evenly_spaced(range(table.num_row_groups), stretches):
            batches = table.iter_batches(_ROWS, row_groups=[group], columns=present)
            for batch in islice(batches, 1):
                rows += [dict.fromkeys(_COLUMNS) | row for row in batch.to_pylist()]
    return rows


def _values(row: dict[str, Any]) -> list[tuple[str, Any]]:
    """What of a row is compared."""
    values: list[tuple[str, Any]] = []
    if row["token_count"] is not None:
        values.append(("lengths", float(row["token_count"])))
    if row["task"] in ("detect", "segment"):
        boxes = row["detections"] or ()
        values += [("labels", box["label"] or "") for box in boxes] or [("labels", "nothing")]
        for box in boxes:
            values += _sure(box.get("confidence"), box["score"])
    else:
        values.append(("labels", row["text"] or ""))
        values += _sure(row["confidence"], row["mean_logprob"])
    return values


def _sure(confidence: float | None, raw: float | None) -> list[tuple[str, float]]:
    """Both, where they are known: of runs that were calibrated otherwise raw scores compare."""
    both = (("confidences", confidence), ("scores", raw))
    return [(name, value) for name, value in both if value is not None]
