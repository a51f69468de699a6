"""A gate holds back a run that is not as it should be, until somebody releases it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paliflow.configs import AnnotateSpec, ReleaseSpec
from paliflow.configs.base import QuarantineError, SpecError
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.cli.main import app
from paliflow.jobs.examples.sources import read_examples
from paliflow.jobs.gates.history import read_checks
from paliflow.jobs.gates.judging import judge
from paliflow.jobs.gates.release import let_through
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.compact import compact
from paliflow.jobs.runs.outputs import find_run, finished_runs, read_summary
from paliflow.jobs.runs.plan import Item, read_plan
from paliflow.jobs.runs.totals import add_up
from paliflow.model import Detection
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.here import annotate_here
from paliflow.tests.jobs.outputs import commit_parts, finish

SAMPLE = Path(__file__).parents[3] / "dags" / "sample"


def photos(first: int = 0) -> list[Item]:
    """Some sample images and one that is broken."""
    scenes = sorted(SAMPLE.glob("scene_*"))[first : first + 7]
    return [Item(str(path)) for path in (*scenes, SAMPLE / "broken_text.png")]


def judged(spec: AnnotateSpec, **gate: Any) -> dict[str, bool]:
    """Which checks a run passes, whose parts are there."""
    plan = read_plan(spec.location)
    assert plan
    spec = AnnotateSpec.parse(spec.model_dump(mode="json") | {"gate": gate})
    checks = judge(spec.location, spec, plan.shards, add_up(spec.location, plan, spec))
    return {check.name: check.passed for check in checks}


def blank(source: Input, prompt: str) -> tuple[str, list[Detection]]:
    """What a model says of images that have gone dark."""
    return "", []


def test_shares_of_rows_are_held_to_their_bounds(make_spec: SpecFactory) -> None:
    spec = make_spec(input="in", prompts=["caption en", "ocr"], shard_size=4)
    commit_parts(spec, photos(), range(2), finished=lambda prompt: prompt == "ocr")
    bounds = {"max_errors": 0.125, "max_cut": 0.5, "max_empty": 0.0}
    passed = judged(spec, **bounds)
    assert passed == {
        "share of rows that are errors": True,
        "share of answers that were cut": True,
        "share of empty answers": True,
    }
    assert not any(judged(spec, max_errors=0.12, max_cut=0.49).values())
    dark = make_spec(input="in", run_id="dark", prompts=["caption en", "detect cat"])
    commit_parts(dark, photos(), range(1), blank)
    assert not judged(dark, max_empty=0.9)["share of empty answers"]


def test_answers_unlike_those_of_an_earlier_run_are_drift(make_spec: SpecFactory) -> None:
    def shelf(source: Input, prompt: str) -> tuple[str, list[Detection]]:
        return "top" if "0" in source.item.uri else "in the middle", []

    scenes = [Item(str(path)) for path in sorted(SAMPLE.glob("scene_*"))]
    asked: dict[str, Any] = {"prompts": ["answer en which shelf?"], "input": "in"}
    alike, dark = make_spec(run_id="alike", **asked), make_spec(run_id="dark", **asked)
    commit_parts(alike, scenes, range(1), shelf)
    commit_parts(dark, scenes, range(1), blank)
    assert judged(alike, drift={}) == {}  # nothing to compare with
    finish(make_spec(run_id="earlier", **asked), scenes, shelf)
    finish(make_spec(run_id="held", **asked), scenes, blank, quarantined=True)
    finish(make_spec(run_id="other", input="in", prompts=["ocr"]), scenes, blank)
    passed = judged(alike, drift={})
    question = "'answer en which shelf?' since earlier"
    compared = {f"drift of {what} of {question}" for what in ("labels", "lengths", "scores")}
    assert set(passed) == compared
    assert all(passed.values())
    assert not judged(dark, drift={"against": "earlier"})[f"drift of labels of {question}"]
    for name in ("nowhere", "held"):
        with pytest.raises(SpecError, match=rf"gate\.drift\.against='{name}'"):
            judged(dark, drift={"against": name})


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        *(("region_box_50", "needs more"), ("without_toxicity", "needs more")),
        ("character_error_rate", "falls as answers get better"),
    ],
)
def test_canaries_are_scored_by_texts_alone_and_by_what_rises(
    make_spec: SpecFactory, tmp_path: Path, metric: str, said: str
) -> None:
    canaries = {"path": str(tmp_path / "labels.jsonl"), "at_least": 0.5, "metric": metric}
    spec = make_spec(input=str(SAMPLE), gate={"canaries": canaries})
    with pytest.raises(SpecError, match=rf"gate\.canaries\.metric='{metric}' {said}"):
        annotate_here(spec)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({}, "give at least one of max_errors"),
        ({"max_not_accepted": 0.1}, "max_not_accepted needs accept"),
        ({"canaries": {"path": "a.jsonl"}}, r"gate\.canaries\.at_least: required"),
        ({"max_errors": 1.5}, r"gate\.max_errors=1\.5"),
    ],
)
def test_a_gate_that_checks_nothing_is_refused(
    make_spec: SpecFactory, gate: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        make_spec(input="in", gate=gate)


def test_a_run_that_fails_its_gate_counts_only_once_it_is_released(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.jsonl"
    scene = str(SAMPLE / "scene_00.jpg")
    lines = [{"image": scene, "prefix": "caption en", "suffix": "a cat that nobody sees"}]
    labels.write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields: dict[str, Any] = {
        "input": scene, "prompts": ["caption en"], "sampling": {}, "compact": True,
        "report": True, "allowed_roots": [str(SAMPLE)],
        "gate": {"max_errors": 0.1, "canaries": {"path": str(labels), "at_least": 0.5}},
    }  # fmt: skip
    spec = make_spec(**fields)
    said = r"quarantined: canaries' exact_match, of the worst actor is 0, at least 0\.5 is let"
    for _ in range(2):  # who repeats it is told again
        with pytest.raises(QuarantineError, match=said):
            annotate_here(spec)
    summary = find_run(spec.output, "test")
    assert [check.passed for check in summary.checks] == [True, False]
    assert summary.rows == summary.ok == 1
    assert not summary.files
    assert finished_runs(spec.output) == []
    with pytest.raises(SpecError, match="is quarantined"):
        compact(summary)
    with pytest.raises(SpecError, match="no finished run"):
        find_run(spec.output)
    with pytest.raises(SpecError, match="quarantined"):
        next(read_examples(ExampleSource(path=spec.location), ()))
    report = Path(spec.location) / "_report.html"
    assert "does not count until it is released" in report.read_text()
    runner = CliRunner()
    shown = runner.invoke(app, ["runs", spec.output, "--checks"]).output
    assert "quarantined" in shown
    assert "at least 0.5" in shown

    with pytest.raises(SpecError, match="why=' '"):
        ReleaseSpec.parse({"output": spec.location, "why": " "})
    done = runner.invoke(app, ["release", spec.location, "--why", "the cat is gone"])
    assert done.exit_code == 0, done.output
    assert "the cat is gone" in report.read_text()
    assert "released" in runner.invoke(app, ["runs", spec.output, "--checks"]).output
    assert [(row["passed"], row["why"]) for row in read_checks(spec.location)] == [
        (True, "the cat is gone"),
        (False, "the cat is gone"),
    ]
    assert [run.run_id for run in finished_runs(spec.output)] == ["test"]
    assert runner.invoke(app, ["release", spec.location, "--why", "the cat is gone"]).exit_code == 0
    with pytest.raises(SpecError, match="nothing to release"):
        let_through(spec.location, "again")
    # Who clears the task takes up what was released, once; after that it starts over.
    cleared = annotate_here(make_spec(**fields, generation=2))
    assert cleared.location == spec.location
    assert cleared.released
    assert cleared.files
    with pytest.raises(QuarantineError):
        annotate_here(make_spec(**fields, generation=4))
    again = read_summary(f"{spec.location}+2")
    assert again
    assert again.quarantined
    # What was found of the run that was started over is still shown.
    shown = runner.invoke(app, ["runs", spec.output, "--checks"]).output
    assert shown.count("canaries' exact_match") == 2
    assert "the cat is gone" in shown
