"""The plan: cut once, read back by shard, never rewritten."""

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs import AnnotateSpec
from paliflow.jobs.registry.locations import Resolved
from paliflow.jobs.runs.plan import Item, read_plan, read_shard, write_plan

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ITEMS = st.builds(
    Item,
    TEXT,
    archive=st.none() | TEXT,
    offset=st.none() | st.integers(0, 2**63 - 1),
    size=st.none() | st.integers(0, 2**63 - 1),
    version=st.none() | TEXT,
    prompts=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    id=st.none() | TEXT,
    metadata=st.none() | TEXT,
    first=st.none() | st.integers(0, 2**63 - 1),
    last=st.none() | st.integers(0, 2**63 - 1),
    frames=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    asks=st.none() | st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple),
)


def spec(size: int, prompts: int = 2) -> dict[str, object]:
    written = {"kind": "annotate", "decode": "exact"}  # which plans of older versions lack
    return {**written, "shard_size": size, "prompts": ["ocr"] * prompts}


@given(st.lists(ITEMS, max_size=50), st.integers(1, 20))
def test_shards_are_the_inputs_in_order_and_full_but_the_last(items: list[Item], size: int) -> None:
    with tempfile.TemporaryDirectory() as run:
        plan = write_plan(run, iter(items), spec(size))
        assert read_plan(run) == plan
        shards = [read_shard(run, plan, shard) for shard in range(plan.shards)]
    assert [item for shard in shards for item in shard] == items
    assert [len(shard) for shard in shards] == [plan.size_of(n) for n in range(plan.shards)]
    assert {len(shard) for shard in shards[:-1]} <= {size}
    asked = [2 if item.prompts is None else len(item.prompts) for item in items]
    assert (plan.inputs, plan.rows) == (len(items), sum(asked))


def test_names_that_are_no_text_are_kept_readable(tmp_path: Path) -> None:
    plan = write_plan(str(tmp_path), [Item("a\udcff")], spec(1))
    assert read_shard(str(tmp_path), plan, 0) == [Item(r"a\udcff")]


def test_there_is_no_plan_before_it_is_whole(tmp_path: Path) -> None:
    assert read_plan(str(tmp_path)) is None


def test_the_first_to_plan_decides_and_the_second_leaves_nothing(tmp_path: Path) -> None:
    run = str(tmp_path)
    first = write_plan(run, [Item(name) for name in "abc"], spec(2))
    files = sorted(tmp_path.rglob("*.parquet"))
    assert write_plan(run, [Item("x")], spec(1)) == first
    assert sorted(tmp_path.rglob("*.parquet")) == files
    assert read_shard(run, first, 1) == [Item("c")]


def test_a_plan_keeps_what_the_registry_said_and_one_of_before_is_read(tmp_path: Path) -> None:
    run, asked = str(tmp_path), Resolved("gs://m/1.npz", "5" * 64)
    names = AnnotateSpec(
        input="x",
        output="y",
        run_id="z",
        prompts=("ocr",),
        checkpoint="registry://m@x",
        registry=run,
    )
    plan = write_plan(run, [Item("a")], spec(1), asked)
    assert plan.pinned(names) == asked
    file = tmp_path / "_plan" / "plan.json"
    old = json.loads(file.read_text())
    del old["checkpoint"], old["checkpoint_sha256"]
    file.write_text(json.dumps(old))
    before = read_plan(run)
    assert before
    here = names.model_copy(update={"checkpoint": "here.npz"})
    assert before.pinned(here) == Resolved("here.npz", None)


def test_a_long_plan_is_read_by_shard(tmp_path: Path) -> None:
    run = str(tmp_path)
    items = (Item(f"gs://bucket/{n:09d}.jpg") for n in range(100_000))
    plan = write_plan(run, items, spec(256))
    assert plan.shards == 391
    assert len(list(tmp_path.rglob("*.parquet"))) == 2
    assert read_shard(run, plan, 300)[0] == Item("gs://bucket/000076800.jpg")
    assert read_shard(run, plan, 390)[-1] == Item("gs://bucket/000099999.jpg")


def test_of_videos_nobody_knows_yet_how_many_rows_they_make(tmp_path: Path) -> None:
    plan = write_plan(str(tmp_path), [Item("a.mp4")], spec(1) | {"video": {"fps": 1}})
    assert (plan.inputs, plan.rows) == (1, None)
