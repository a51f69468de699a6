"""Starting a run over: who resumes, who begins anew, and that no row of the old run comes back."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from paliflow import storage
from paliflow.configs import AnnotateSpec, EvaluateSpec, EvaluateSummary
from paliflow.configs.base import SpecError
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs.runs.compact import compact
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.outputs import find_run, list_runs, read_summary, row_files, state
from paliflow.jobs.runs.plan import Item, read_plan
from paliflow.jobs.runs.restarting import settle
from paliflow.jobs.sources.incremental import filter_unanswered
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.evaluations import evaluated, right
from paliflow.tests.jobs.outputs import commit_parts, finish

ITEMS = [Item(f"missing/{number}.jpg") for number in range(10)]


@pytest.fixture(params=["local", pytest.param("gs", marks=pytest.mark.slow)])
def spec(
    request: pytest.FixtureRequest, gcs: None, make_spec: SpecFactory, tmp_path: Path
) -> AnnotateSpec:
    """A run of three shards that was begun in generation 2."""
    where = str(tmp_path / "out") if request.param == "local" else f"gs://images/{tmp_path.name}"
    made = make_spec(input="missing", output=where, run_id="x", shard_size=4, generation=2)
    return settle(made, ANNOTATIONS)


def again(spec: AnnotateSpec, **fields: object) -> AnnotateSpec:
    """What a later try is told, and then settles for."""
    return settle(spec.model_copy(update={"run_id": "x", **fields}), ANNOTATIONS)


def rows(output: str) -> list[str]:
    """The prompts of all rows, read by a glob as docs/output.md says."""
    found: list[str] = []
    for entry in storage.match(f"{output}/*/*.parquet"):
        with storage.open_binary(entry.uri) as file:
            found += pq.read_table(file, columns=["prompt"])["prompt"].to_pylist()
    return found


def test_a_retry_resumes_whether_the_run_is_finished_or_not(spec: AnnotateSpec) -> None:
    commit_parts(spec, ITEMS, [0])
    assert again(spec).run_id == "x"
    finish(spec, ITEMS)
    assert again(spec).run_id == "x"
    assert again(spec, prompts=("ocr",)).run_id == "x"  # which `check_same_spec` then refuses


def test_a_clear_of_an_unfinished_run_with_the_same_spec_resumes(spec: AnnotateSpec) -> None:
    commit_parts(spec, ITEMS, [0])
    assert again(spec, generation=5).run_id == "x"
    finish(spec, ITEMS)
    # The retry of that clear resumes, too; the next clear starts over.
    assert again(spec, generation=5).run_id == "x"
    assert again(spec, generation=7).run_id == "x+2"


@pytest.mark.parametrize("finished", [False, True])
def test_a_clear_with_another_spec_starts_over(spec: AnnotateSpec, finished: bool) -> None:
    if finished:
        finish(spec, ITEMS)
    else:
        commit_parts(spec, ITEMS, [0])
    new = again(spec, generation=5, prompts=("ocr",))
    assert new.run_id == "x+2"
    assert rows(spec.output) == []
    finish(new, ITEMS)
    assert rows(spec.output) == ["ocr"] * len(ITEMS)
    for _ in range(2):  # a retry
        assert again(spec, generation=5, prompts=("ocr",)).run_id == "x+2"
    assert again(spec, generation=8, prompts=("ocr",)).run_id == "x+3"
    assert rows(spec.output) == []


def test_commits_of_the_old_job_come_to_nothing(spec: AnnotateSpec) -> None:
    commit_parts(spec, ITEMS, [0])
    again(spec, generation=5, prompts=("ocr",))
    commit_parts(spec, ITEMS, range(3))  # an actor that nobody could reach
    assert rows(spec.output) == []
    assert read_summary(spec.location) is None


def test_a_compacted_run_and_one_being_compacted_are_superseded_whole(spec: AnnotateSpec) -> None:
    summary = compact(finish(spec, ITEMS))
    assert summary.files
    assert again(spec, generation=5).run_id == "x+2"
    assert rows(spec.output) == []
    other = spec.model_copy(update={"run_id": "x+2"})
    slow = finish(other, ITEMS)
    assert again(spec, generation=6).run_id == "x+3"
    compact(slow)  # of a job that still believes in it
    assert rows(spec.output) == []


def test_a_try_that_died_while_starting_over_is_completed(
    spec: AnnotateSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(spec, ITEMS)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "overwrite", _dies)
        with pytest.raises(KeyboardInterrupt):
            again(spec, generation=5)
    assert read_summary(spec.location) is None
    assert again(spec, generation=5).run_id == "x+2"
    assert rows(spec.output) == []


def _dies(uri: str, content: object) -> None:
    raise KeyboardInterrupt


def test_those_who_list_find_and_continue_runs_pass_a_superseded_one_by(
    spec: AnnotateSpec,
) -> None:
    finish(spec, ITEMS)
    new = again(spec, generation=5)
    assert [*filter_unanswered(ITEMS, spec, "5" * 64)] == ITEMS
    summary = finish(new, ITEMS)
    assert [(run.run_id, state(run)) for run in list_runs(spec.output)] == [
        ("x", "superseded by x+2"),
        ("x+2", "finished"),
    ]
    assert find_run(spec.output, "x") == find_run(spec.output) == summary
    assert row_files(compact(find_run(spec.output, "x")))[0].startswith(new.location)


def test_an_evaluation_that_was_superseded_is_not_taken_for_an_annotation(tmp_path: Path) -> None:
    evaluated(tmp_path, "x", right(0.5), right(0.5), spec={"sets": {}})
    given = {"output": str(tmp_path), "run_id": "x", "generation": 1, "sets": {"a": {"path": "b"}}}
    spec = EvaluateSpec.parse(given)
    assert settle(spec).run_id == "x+2"
    assert list_runs(str(tmp_path)) == []
    assert read_summary(f"{tmp_path}/run_id=x", EvaluateSummary) is None


def test_a_run_of_another_spec_says_that_clearing_starts_over(spec: AnnotateSpec) -> None:
    commit_parts(spec, ITEMS, [])
    plan = read_plan(spec.location)
    assert plan
    with pytest.raises(SpecError, match="cleared in Airflow starts over"):
        check_same_spec(plan.spec, spec.model_copy(update={"prompts": ("ocr",)}))
