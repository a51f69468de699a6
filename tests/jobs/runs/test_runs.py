"""Runs of an output: which there are, how far each is, which rows stand for one."""

import io
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.examples.sources import read_examples
from paliflow.jobs.runs.compact import compact
from paliflow.jobs.runs.outputs import (
    find_run,
    finished_runs,
    list_runs,
    read_summary,
    row_files,
    sample_rows,
    state,
)
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.incremental import filter_unanswered
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.evaluations import evaluated, right
from paliflow.tests.jobs.outputs import commit_parts, finish

ITEMS = [Item(f"missing/{number}.jpg") for number in range(10)]
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["local", "gs"])
def output(request: pytest.FixtureRequest, gcs: None, tmp_path: Path) -> str:
    """Where nothing is yet; its name looks like a glob."""
    name = f"{tmp_path.name} [2026]"
    return str(tmp_path / name) if request.param == "local" else f"gs://images/{name}"


def test_runs_of_other_jobs_are_passed_over_but_what_is_broken_is_not(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    finish(make_spec(input="missing", run_id="b"), ITEMS)
    evaluated(output, "c", right(0.5), right(0.5), spec={"sets": {}})
    planned = output / "run_id=d" / "_plan" / "plan.json"
    planned.parent.mkdir(parents=True)
    planned.write_text('{"spec": {"train": []}, "folder": "x", "sources": []}')
    assert [run.run_id for run in list_runs(str(output))] == ["b"]
    planned.write_text("{}")
    assert [(run.run_id, bool(run.broken)) for run in list_runs(str(output))] == [
        ("b", False),
        ("d", True),
    ]
    with pytest.raises(SpecError, match=r"plan\.json is broken.*Plan.*move .*run_id=d away"):
        finished_runs(str(output))


BROKEN = [b"{}", b"[]", b"null", b'{"spec": 5}', b"not JSON", b"\xff", b"", b"[" * 100_000]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_neighbour_is_listed_and_named_and_hides_no_other_run(
    make_spec: SpecFactory, tmp_path: Path, content: bytes
) -> None:
    output = tmp_path / "output"
    finish(make_spec(input="missing", run_id="b"), ITEMS)
    broken = output / "run_id=a" / "_manifest.json"
    broken.parent.mkdir()
    broken.write_bytes(content)
    worse, good = list_runs(str(output))
    assert state(worse).startswith(f"broken: {broken} is broken, or of a newer Paliflow: ")
    assert state(good) == "finished"
    spec = make_spec(input="missing", only_new=True)
    for use in (
        lambda: find_run(str(output)),
        lambda: find_run(str(output), "a"),
        lambda: list(filter_unanswered(ITEMS, spec, "sha")),
        lambda: list(read_examples(ExampleSource(path=str(output)), ())),
    ):
        with pytest.raises(SpecError, match=str(broken)):
            use()
    broken.unlink()
    finish(make_spec(input="missing", run_id="a"), ITEMS)
    (output / "run_id=a" / "_compact").mkdir()
    (decision := output / "run_id=a" / "_compact" / "decision.json").write_bytes(content)
    if content != b"[]":
        with pytest.raises(SpecError, match=str(decision)):
            compact(find_run(str(output), "a"))


def test_a_broken_part_of_an_unfinished_neighbour_is_named(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    spec = make_spec(input="missing")
    commit_parts(spec, ITEMS, [0])
    part = Path(spec.location, "part-00000.parquet")
    table = pa.table({"a": [1]})
    for content in (b"PAR1", b"", table):
        part.unlink()
        pq.write_table(content, part) if content is table else part.write_bytes(content)
        (run,) = list_runs(spec.output)
        assert state(run).startswith(f"broken: {part} is no part of a run")


def test_runs_are_listed_with_how_far_they_are(output: str, make_spec: SpecFactory) -> None:
    spec = make_spec(input="missing", output=output, run_id="b", shard_size=4)
    finish(spec, ITEMS, finished=NEW_YEAR)
    commit_parts(spec.model_copy(update={"run_id": "a"}), ITEMS, [0, 2])
    commit_parts(spec.model_copy(update={"run_id": "d"}), ITEMS, [])
    content = io.BytesIO(b"its last row is not written yet")
    storage.commit_if_absent(f"{output}/run_id=c/_plan/0123/00000.parquet", content)
    storage.commit_if_absent(f"{output}/other/file", content)
    runs = list_runs(f"{output}/")
    assert [(run.run_id, state(run)) for run in runs] == [
        ("a", "unfinished, 2 of 3 parts done"),
        ("b", "finished"),
        ("c", "planning or not there"),
        ("d", "unfinished, 0 of 3 parts done"),
    ]
    assert runs[0].latest is not None
    assert runs[0].latest.committed > NEW_YEAR
    assert runs[1].summary is not None
    assert runs[1].summary.rows == 20


def test_an_output_stands_for_its_newest_finished_run(output: str, make_spec: SpecFactory) -> None:
    spec = make_spec(input="missing", output=output, run_id="b")
    old = spec.model_copy(update={"run_id": "c"})
    newest = finish(spec, ITEMS, finished=NEW_YEAR)
    older = finish(old, ITEMS, finished=NEW_YEAR - timedelta(days=1))
    commit_parts(spec.model_copy(update={"run_id": "a"}), ITEMS, [])
    assert find_run(output) == newest
    assert find_run(output, "c") == find_run(older.location) == older
    for name, run_id in (("a", "a"), ("nothing", "nothing"), ("run_id=a", None)):
        with pytest.raises(SpecError, match=rf"run_id={name.removeprefix('run_id=')}: the run is"):
            find_run(output if run_id else f"{output}/{name}", run_id)
    with pytest.raises(SpecError, match="no finished run"):
        find_run(f"{output}/other")


def test_a_run_that_was_moved_is_where_it_is_now(make_spec: SpecFactory, tmp_path: Path) -> None:
    summary = finish(make_spec(input="missing"), ITEMS)
    shutil.move(summary.location, tmp_path / "elsewhere")
    moved = read_summary(str(tmp_path / "elsewhere"))
    assert moved is not None
    assert moved.location == str(tmp_path / "elsewhere")
    assert len(sample_rows(moved, 5)) == 5


def test_rows_are_shown_of_a_run_that_has_a_part_without_any(make_spec: SpecFactory) -> None:
    summary = finish(make_spec(input="missing", shard_size=5), ITEMS)
    part = row_files(summary)[0]
    pq.write_table(pq.read_schema(part).empty_table(), part)
    assert {row["source_uri"] for row in sample_rows(summary, 100)} == {
        f"missing/{number}.jpg" for number in range(5, 10)
    }


def test_the_rows_shown_come_from_all_over_the_run_in_order(
    output: str, make_spec: SpecFactory
) -> None:
    spec = make_spec(input="missing", output=output, shard_size=3)
    summary = finish(spec, ITEMS)
    shown = [row["source_uri"] for row in sample_rows(summary, 4)]
    assert shown == [f"missing/{number}.jpg" for number in (0, 3, 6, 9)]
    assert len(sample_rows(summary, 100)) == 20
    compacted = compact(summary)
    assert len(row_files(compacted)) == 1
    assert [row["source_uri"] for row in sample_rows(compacted, 2)] == [
        "missing/0.jpg",
        "missing/5.jpg",
    ]
