"""Paliflow's own annotations as examples: rows that are sure enough, or that somebody approved."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import RunSummary
from paliflow.configs.base import SpecError
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.examples.example import Example, make_example, self_contained_uri
from paliflow.jobs.runs.outputs import finished_runs, read_summary, row_files
from paliflow.jobs.runs.plan import Item, read_plan, read_shard
from paliflow.jobs.sources.columns import require

_ROWS_AT_ONCE = 8192
_OWN = {"image_column": "source_uri", "prefix_column": "prompt", "suffix_column": "text"}
"""The columns that stand for those of labelled files."""
_JUDGED = ("status", "finished", "logprob", "token_count")
_Row = Mapping[str, Any]


def annotation_examples(
    uri: str, source: ExampleSource, folder: str, dropped: Counter[str]
) -> Iterator[Example | str | None]:
    """The rows of finished runs that are `ok`, finished, and wanted by the source's filters.

    A column that the source names otherwise than by default is one of the rows', or a key of
    their `metadata`. The id is `<run id>/<row>`, rows counted from 0 over all of the run; runs
    are in the order of their ids.

    Args:
        uri: of an output, or of one run.
        source: `prompts`, `min_score` and `reviewed_column` leave rows out, uncounted.
        folder: what paths in a column of their own are relative to.
        dropped: nothing is.

    Raises:
        SpecError: no run is finished, or no row has a column that is named.
        ValueError: a file of a run cannot be read.
    """
    names = {field: _column(source, field) for field in _OWN}
    image, prefix, suffix = names.values()
    named = {name: f"{field}={name!r}" for field, name in names.items() if name != _OWN[field]}
    if source.reviewed_column:
        named[source.reviewed_column] = f"reviewed_column={source.reviewed_column!r}"
    seen: set[str] = set()
    for run in _finished(uri):
        rows = _with_places(run, _rows(run, {*_OWN.values(), *named}))
        for number, row in enumerate(rows):
            if named:
                row = _metadata(row) | row
                seen.update(row)
            if _wanted(row, source):
                yield make_example(
                    f"{run.run_id}/{number}", row.get(image), row.get(prefix) or source.prefix,
                    row.get(suffix), folder, source.empty,
                )  # fmt: skip
    require(named, sorted(seen))


def names_images_itself(source: ExampleSource) -> bool:
    """Whether the images are those that the rows are of, which Paliflow has written and read
    itself, and not what a column of the user's says."""
    return _column(source, "image_column") == _OWN["image_column"]


def _column(source: ExampleSource, field: str) -> str:
    """What the source names, where it is not what the field means in labelled files."""
    name: str = getattr(source, field)
    return _OWN[field] if name == ExampleSource.model_fields[field].default else name


def _finished(uri: str) -> list[RunSummary]:
    summary = read_summary(uri)
    if summary and summary.quarantined:
        raise SpecError("the run is quarantined; `paliflow release` it first")
    runs = [summary] if summary else finished_runs(uri)
    if not runs:
        raise SpecError("there is no such file, and no finished run of annotations")
    return runs


def _rows(run: RunSummary, wanted: set[str]) -> Iterator[dict[str, Any]]:
    for uri in row_files(run):
        with storage.open_binary(uri) as file:
            table = pq.ParquetFile(file)
            columns = wanted | {*_JUDGED, "metadata"}
            present = [name for name in table.schema_arrow.names if name in columns]
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=present):
                yield from batch.to_pylist()


def _with_places(run: RunSummary, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of a tar's members the plan, whose order the rows have, knows where in the tar they are."""
    items = _planned(run)
    item: Item | None = None
    for row in rows:
        uri = row["source_uri"]
        if "#" in uri:
            if not item or item.uri != uri:
                item = next((planned for planned in items if planned.uri == uri), None)
            if item:
                row["source_uri"] = self_contained_uri(item)
        yield row


def _planned(run: RunSummary) -> Iterator[Item]:
    if plan := read_plan(run.location):
        for shard in range(plan.shards):
            yield from read_shard(run.location, plan, shard)


def _metadata(row: _Row) -> dict[str, Any]:
    return json.loads(row["metadata"]) if row.get("metadata") else {}


def _wanted(row: _Row, source: ExampleSource) -> bool:
    if row["status"] != "ok" or not row["finished"]:
        return False
    if source.prompts and row["prompt"] not in source.prompts:
        return False
    if source.min_score is not None:
        if row["logprob"] is None or not row["token_count"]:
            return False
        if math.exp(row["logprob"] / row["token_count"]) < source.min_score:
            return False
    return not source.reviewed_column or _approves(row.get(source.reviewed_column))


def _approves(value: object) -> bool:
    """Metadata from a CSV is text: there "false" must not pass for true."""
    if isinstance(value, str):
        return value.strip().lower() in ("true", "yes", "1")
    return value in (True, 1)
