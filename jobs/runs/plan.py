"""The plan: a run's inputs, written once before work starts; a shard means the same for ever."""

import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from paliflow import storage
from paliflow.configs.base import Spec
from paliflow.configs.run import ModelSpec
from paliflow.configs.schema import PLAN
from paliflow.jobs.registry.locations import Resolved, checkpoint_of
from paliflow.jobs.runs.item import Item as Item
from paliflow.jobs.runs.records import commit_spec, find_spec

_SHARDS_A_FILE = 256
"""Whoever reads a shard reads its file's footer, which grows with the file's row groups."""


class Plan(Spec):
    """`_plan/plan.json`: what a run is, written when its inputs are all listed."""

    kind: Literal["annotate", "extract", "filter"]
    spec: dict[str, Any]
    """The `AnnotateSpec`, `ExtractSpec` or `FilterSpec` as JSON."""
    folder: str
    """The folder of the plan's Parquet files, in `_plan/`."""
    inputs: int
    rows: int | None
    """Inputs times the prompts of each; None of videos, whose frames are counted when read, and
    where there are no prompts."""
    shards: int
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Files of the input's folders and tars that are no inputs, by suffix."""
    checkpoint: str | None = None
    """What the spec's resolved to; None in plans of older versions, which had no registry."""
    checkpoint_sha256: str | None = None
    """What the registry says that its digest is."""

    def pinned(self, spec: ModelSpec) -> Resolved:
        """The run's weights, whatever a registry says by now."""
        return Resolved(self.checkpoint or checkpoint_of(spec), self.checkpoint_sha256)

    def size_of(self, shard: int) -> int:
        """How many inputs a shard has; all are full but the last."""
        size: int = self.spec["shard_size"]
        return min(size, self.inputs - shard * size)


def write_plan(
    run: str,
    items: Iterable[Item],
    spec: dict[str, Any],
    resolved: Resolved | None = None,
    passed_over: Mapping[str, int] | None = None,
) -> Plan:
    """Cuts the inputs into shards and writes them; row group k of file n is one shard.

    Of two that plan the same run, the first to finish decides for both.

    Args:
        run: the run's folder.
        items: streamed; one shard of them is in memory at a time.
        spec: the `AnnotateSpec`, `ExtractSpec` or `FilterSpec` as JSON.
        resolved: the weights that it stands for; its `checkpoint` if not given.
        passed_over: what the items are without, counted while they are streamed.
    """
    folder = uuid.uuid4().hex
    size, asked = spec["shard_size"], len(spec.get("prompts", ()))
    remaining = iter(items)
    inputs = rows = shards = 0
    while first := list(islice(remaining, size)):
        others = iter(lambda: list(islice(remaining, size)), [])
        with tempfile.TemporaryFile() as file:
            with pq.ParquetWriter(pa.PythonFile(file, mode="w"), PLAN, compression="zstd") as out:
                for shard in chain([first], islice(others, _SHARDS_A_FILE - 1)):
                    out.write_table(to_table(shard))
                    inputs += len(shard)
                    rows += sum(
                        asked if item.prompts is None else len(item.prompts) for item in shard
                    )
                    shards += 1
            storage.commit_if_absent(_file_uri(run, folder, shards - 1), file)
    plan = Plan(
        kind=spec["kind"],
        spec=spec,
        folder=folder,
        inputs=inputs,
        rows=None if spec.get("video") or "prompts" not in spec else rows,
        shards=shards,
        passed_over=dict(Counter(passed_over or {}).most_common()),
        checkpoint=resolved and resolved.checkpoint,
        checkpoint_sha256=resolved and resolved.sha256,
    )
    settled = commit_spec(plan_uri(run), plan)
    if settled is not plan:
        for number in range(0, shards, _SHARDS_A_FILE):
            storage.delete(_file_uri(run, folder, number))
    return settled


def read_plan(run: str) -> Plan | None:
    """A run's plan, None while there is none."""
    return find_spec(plan_uri(run), Plan)


def read_shard(run: str, plan: Plan, shard: int) -> list[Item]:
    """The inputs of one shard, in order."""
    with storage.open_binary(_file_uri(run, plan.folder, shard)) as file:
        table = pq.ParquetFile(file).read_row_group(shard % _SHARDS_A_FILE)
    return to_items(table)


def to_table(items: Sequence[Item]) -> pa.Table:
    """The items by the columns of `PLAN`."""
    # Lone surrogates, which JSON can smuggle in, are not UTF-8.
    uris = [item.uri.encode(errors="backslashreplace").decode() for item in items]
    columns = dict(zip(Item._fields, zip(*items, strict=True), strict=True)) | {"uri": uris}
    return pa.table([columns[name] for name in PLAN.names], schema=PLAN)


def to_items(table: pa.Table | pa.RecordBatch) -> list[Item]:
    """The inverse of `to_table`."""
    columns = table.to_pydict()
    for name in ("prompts", "asks", "choices", "frames", "roots"):
        if name in columns:
            columns[name] = [own if own is None else tuple(own) for own in columns[name]]
    rows = zip(*columns.values(), strict=True)  # older plans lack columns
    return [Item(**dict(zip(columns, row, strict=True))) for row in rows]


def plan_uri(run: str) -> str:
    """Where a run's plan lies, whatever its kind."""
    return f"{run}/_plan/plan.json"


def _file_uri(run: str, folder: str, shard: int) -> str:
    return f"{run}/_plan/{folder}/{shard // _SHARDS_A_FILE:05d}.parquet"
