"""The plan: a run's inputs, written once before work starts; row group k is shard k for ever."""

import tempfile
from collections.abc import Iterable
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow.configs.schema import PLAN
from paliflow.jobs import storage


def write_plan(run: str, uris: Iterable[str], shard_size: int) -> None:
    """Cuts the inputs into shards and writes them, unless the run has a plan already.

    Args:
        run: the run's folder.
        uris: streamed; one shard of them is in memory at a time.
        shard_size: inputs a shard; the last may have fewer.
    """
    remaining = iter(uris)
    with tempfile.TemporaryFile() as file:
        with pq.ParquetWriter(pa.PythonFile(file, mode="w"), PLAN, compression="zstd") as writer:
            while shard := list(islice(remaining, shard_size)):
                # Lone surrogates, which JSON can smuggle in, are not UTF-8.
                valid = [uri.encode(errors="backslashreplace").decode() for uri in shard]
                writer.write_table(pa.table([valid], schema=PLAN))
        storage.commit_if_absent(plan_uri(run), file)


def shard_sizes(run: str) -> list[int]:
    """How many inputs each shard of a run's plan has.

    Raises:
        FileNotFoundError: there is no plan yet.
    """
    with storage.open_binary(plan_uri(run)) as file:
        metadata = pq.read_metadata(file)
    return [metadata.row_group(shard).num_rows for shard in range(metadata.num_row_groups)]


def read_shard(run: str, shard: int) -> list[str]:
    """The inputs of one shard, in order."""
    with storage.open_binary(plan_uri(run)) as file:
        uris: list[str] = pq.ParquetFile(file).read_row_group(shard)["uri"].to_pylist()
    return uris


def plan_uri(run: str) -> str:
    """Where a run keeps its plan."""
    return f"{run}/_plan/plan.parquet"
