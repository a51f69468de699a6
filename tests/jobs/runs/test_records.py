"""What runs write of themselves, in files of this version and of those that wrote no `kind`."""

import json
from pathlib import Path
from typing import Any

import pytest

from paliflow.configs import (
    AnnotateSpec,
    EvaluateSpec,
    EvaluateSummary,
    ExtractSpec,
    ExtractSummary,
    FineTuneSpec,
    FineTuneSummary,
    RunSummary,
)
from paliflow.configs.base import SpecError
from paliflow.configs.run import RunSpec
from paliflow.configs.summary import Summary
from paliflow.jobs.examples.plan import ExamplePlan
from paliflow.jobs.finetune.start import Start
from paliflow.jobs.runs.identity import differences
from paliflow.jobs.runs.lifecycle import run_once
from paliflow.jobs.runs.outputs import list_runs, read_summary, state
from paliflow.jobs.runs.plan import Plan
from paliflow.jobs.runs.records import read_spec
from paliflow.jobs.runs.restarting import settle
from paliflow.tests.summaries import made_up

DATA = Path(__file__).parents[2] / "data" / "runs_without_kind"
KINDS: dict[str, tuple[type[RunSpec], type[Summary], Any]] = {
    "annotate": (AnnotateSpec, RunSummary, Plan),
    "extract": (ExtractSpec, ExtractSummary, Plan),
    "evaluate": (EvaluateSpec, EvaluateSummary, ExamplePlan),
    "finetune": (FineTuneSpec, FineTuneSummary, ExamplePlan),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def write(kind: str, output: Path, *, finished: bool = True) -> str:
    """A run's folder as the version without kinds left it."""
    folder = output / "run_id=old"
    (folder / "_plan").mkdir(parents=True)
    for name, content in json.loads((DATA / f"{kind}.json").read_text()).items():
        if finished or name != "_manifest.json":
            (folder / name).write_text(json.dumps(content))
    return str(folder)


def no_work(*_: object) -> Any:
    raise AssertionError("a finished run was done again")


@kinds
def test_old_manifest_is_read_and_its_run_is_not_done_again(kind: str, tmp_path: Path) -> None:
    spec_class, summary_class, _ = KINDS[kind]
    run = write(kind, tmp_path)
    summary = read_summary(run, summary_class)
    assert summary is not None
    assert summary.model_dump()["kind"] == summary.spec["kind"] == kind
    asked = {name: value for name, value in summary.spec.items() if name != "kind"}
    spec = spec_class.parse(asked | {"output": str(tmp_path)})
    assert run_once(spec, summary_class, no_work, no_work, ()) == summary


@kinds
def test_old_plan_is_of_the_same_spec_so_that_its_run_goes_on(kind: str, tmp_path: Path) -> None:
    spec_class, _, plan_class = KINDS[kind]
    run = write(kind, tmp_path, finished=False)
    plan = read_spec(f"{run}/_plan/plan.json", plan_class)
    assert plan.kind == plan.spec["kind"] == kind
    spec = spec_class.parse({**plan.spec, "output": str(tmp_path), "generation": 7})
    assert differences(plan.spec, spec) == []
    if kind != "extract":  # images were read exactly, before there was another way
        now = spec.model_copy(update={"decode": "fast"})
        assert differences(plan.spec, now) == ["decode was 'exact', is 'fast'"]
    assert settle(spec).run_id == "old"  # resumed, not started over
    if kind == "finetune":
        assert read_spec(f"{run}/_plan/start.json", Start).spec["kind"] == kind


@pytest.mark.parametrize("finished", [True, False])
@kinds
def test_old_runs_of_other_kinds_are_passed_over(kind: str, finished: bool, tmp_path: Path) -> None:
    write(kind, tmp_path, finished=finished)
    states = [state(run) for run in list_runs(str(tmp_path))]
    annotation = ["finished" if finished else "unfinished, 0 of 1 parts done"]
    assert states == (annotation if kind == "annotate" else [])


def test_run_of_another_kind_is_named_with_both_kinds(tmp_path: Path) -> None:
    run = write("evaluate", tmp_path)
    with pytest.raises(SpecError, match="another kind, 'evaluate' instead of 'annotate'; take"):
        read_summary(run)
    with pytest.raises(SpecError, match="'evaluate' instead of 'annotate' or 'extract'"):
        read_spec(f"{run}/_plan/plan.json", Plan)
    spec = AnnotateSpec(input="in", output=str(tmp_path), run_id="old", prompts=("ocr",))
    begun = {"kind": "evaluate", "sets": {}}
    assert differences(begun, spec) == ["kind was 'evaluate', is 'annotate'"]


def test_kind_of_a_newer_version_is_passed_over_and_hides_no_run(tmp_path: Path) -> None:
    for name, kind in (("a", "annotate"), ("b", "depth")):
        summary = made_up(f"{tmp_path}/run_id={name}").model_dump(mode="json") | {"kind": kind}
        (tmp_path / f"run_id={name}").mkdir()
        (tmp_path / f"run_id={name}" / "_manifest.json").write_text(json.dumps(summary))
    assert [run.run_id for run in list_runs(str(tmp_path))] == ["a"]


def test_specs_are_sent_without_the_kind_that_an_older_job_would_refuse() -> None:
    spec = ExtractSpec.parse({"input": "i", "output": "o", "run_id": "r", "video": {"fps": 1}})
    assert "kind" not in json.loads(spec.given())
    with pytest.raises(SpecError, match="kind='annotate': Input should be 'extract'"):
        ExtractSpec.parse(json.loads(spec.given()) | {"kind": "annotate"})
