"""The plan: cut once, read back by shard, never rewritten."""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from paliflow.jobs.plan import plan_uri, read_shard, shard_sizes, write_plan


@given(st.lists(st.text(), min_size=1, max_size=50), st.integers(1, 20))
def test_shards_are_the_inputs_in_order_and_full_but_the_last(uris: list[str], size: int) -> None:
    with tempfile.TemporaryDirectory() as run:
        write_plan(run, iter(uris), size)
        sizes = shard_sizes(run)
        shards = [read_shard(run, shard) for shard in range(len(sizes))]
    assert [len(shard) for shard in shards] == sizes
    assert set(sizes[:-1]) <= {size}
    planned = [uri for shard in shards for uri in shard]
    assert planned == [uri.encode(errors="backslashreplace").decode() for uri in uris]


def test_a_plan_once_written_stays(tmp_path: Path) -> None:
    write_plan(str(tmp_path), ["a", "b", "c"], 2)
    write_plan(str(tmp_path), ["x"], 1)
    assert shard_sizes(str(tmp_path)) == [2, 1]
    assert read_shard(str(tmp_path), 1) == ["c"]


def test_a_long_plan_is_written_and_read_by_row_groups(tmp_path: Path) -> None:
    write_plan(str(tmp_path), (f"gs://bucket/{n:09d}.jpg" for n in range(100_000)), 256)
    footer = pq.read_metadata(plan_uri(str(tmp_path)))
    assert footer.num_row_groups == 391
    assert read_shard(str(tmp_path), 390)[-1] == "gs://bucket/000099999.jpg"
