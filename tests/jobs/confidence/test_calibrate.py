"""`calibrate`: an evaluation's answers become a calibration, which annotation then uses."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from paliflow.configs import AnnotateSpec, CalibrateSpec, CalibrateSummary, PromptSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.confidence.calibration import Calibration, form_of_prompt, read_calibration
from paliflow.jobs.confidence.filling import Confidences
from paliflow.jobs.evaluate.calibrating import calibrate
from paliflow.jobs.registry import aliases as registry
from paliflow.jobs.registry.checkpoints import digest_of
from paliflow.jobs.registry.locations import Resolved, tokenizer_beside
from paliflow.model import BUNDLED_CHECKPOINT
from paliflow.tests.jobs.confidence.labelled import DETECT, FREE, PROMPTS, SHELF, scored_evaluation
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.here import annotate_here

SAMPLE = Path(__file__).parents[3] / "dags" / "sample"


def calibrated(evaluation: str, **fields: Any) -> CalibrateSummary:
    return calibrate(CalibrateSpec.parse({"evaluation": evaluation, **fields}), Console())


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> str:
    return scored_evaluation(tmp_path_factory.mktemp("evaluations"))


def test_calibration_makes_frequencies_of_scores_by_prompt(evaluation: str, tmp_path: Path) -> None:
    summary = calibrated(evaluation, output=str(tmp_path))
    tasks = {group.prompt: group.task for group in summary.groups}
    assert tasks == {SHELF: "answer", FREE: "answer", DETECT: "detect"}
    for group in summary.groups:
        assert group.rows == sum(bin_.rows for bin_ in group.after.bins) == 400
        assert group.before.ece.value > 0.05
        assert group.after.ece.value < group.before.ece.value - 0.02
        assert group.after.brier.low < group.after.brier.value < group.after.brier.high
    assert summary.groups[-1].average_precision
    by_score, by_confidence = summary.groups[-1].average_precision
    assert by_confidence > by_score  # every box has the same `score`
    page = Path(summary.report).read_text()
    assert page.count("<svg") == 2 * len(summary.groups)
    assert "fixed choices" in page
    assert calibrated(evaluation, output=str(tmp_path)).groups == summary.groups


def test_a_row_gets_the_confidence_of_its_prompt_and_label(evaluation: str, tmp_path: Path) -> None:
    known = read_calibration(calibrated(evaluation, output=str(tmp_path)).calibration)
    shelf = form_of_prompt(PromptSpec.parse(PROMPTS[0]))
    row = {"task": "answer", "prompt": SHELF, "status": "ok", "text": "top", "logprob": -3.0}
    row["choices"] = [{"label": "top", "probability": 0.9}]
    Confidences(known).fill(row, shelf)
    assert "accepted" not in row
    assert row["confidence"] == pytest.approx(0.73, abs=0.08)
    box = {"label": "cat", "label_probability": 1.0, "location_mass": 0.9, "score": 0.3}
    boxes = {"task": "detect", "prompt": DETECT, "status": "ok", "logprob": -1.0}
    boxes["detections"] = [box]
    Confidences(known).fill(boxes, "free")
    assert box["confidence"] == pytest.approx(0.73, abs=0.08)
    assert "confidence" not in boxes
    other = PromptSpec(ask=SHELF, choices=("top", "none"))
    for prompt, form in (
        (SHELF, form_of_prompt(other)),
        (SHELF, "free"),
        ("answer en why?", "free"),
    ):
        unknown = {**row, "prompt": prompt}
        del unknown["confidence"]
        Confidences(known, 0.5).fill(unknown, form)
        assert "confidence" not in unknown
        assert unknown["accepted"] is False


def test_what_is_accepted_has_a_confidence_that_reaches_the_precision(
    evaluation: str, tmp_path: Path
) -> None:
    summary = calibrated(evaluation, output=str(tmp_path))
    known = read_calibration(summary.calibration)
    (group,) = (own for own in summary.groups if own.prompt == DETECT)
    (at,) = (own for own in group.thresholds if own.precision == 0.8)
    assert at.confidence
    assert 0.8 < at.right / at.rows < 1
    boxes: list[dict[str, Any]] = [
        {"label": "cat", "label_probability": 1.0, "location_mass": raw, "score": 0.3}
        for raw in (0.999, 0.9, 0.6)
    ]
    row = {"task": "detect", "prompt": DETECT, "status": "ok", "logprob": -1.0, "detections": boxes}
    Confidences(known, 0.8).fill(row, "free")
    assert [box["accepted"] for box in boxes] == [
        box["confidence"] >= at.confidence for box in boxes
    ]
    assert {box["accepted"] for box in boxes} == {True, False}
    Confidences(known, 0.999).fill(row, "free")
    assert not any(box["accepted"] for box in boxes)


def test_many_prompts_of_a_task_are_calibrated_together(tmp_path: Path) -> None:
    location = scored_evaluation(tmp_path, 300)
    for file in (f"{location}/predictions.parquet", f"{location}/_answers"):
        _vary_questions(Path(file))
    summary = calibrated(location, sets=["all"])
    together = {group.prompt: group.rows for group in summary.groups if group.form == "free"}
    assert together == {None: 300, DETECT: 300}
    known = read_calibration(summary.calibration)
    assert known.group("answer en what else?", "free")
    assert not known.group("caption en", "free")


def _vary_questions(path: Path) -> None:
    """Makes each question that is answered in free words another."""
    for file in path.rglob("*.parquet") if path.is_dir() else [path]:
        table = pq.read_table(file)
        name = "prompt" if "prompt" in table.column_names else "prefix"
        asked = [
            f"{prompt[:-1]} {number}?" if prompt == FREE else prompt
            for number, prompt in enumerate(table[name].to_pylist())
        ]
        place = table.column_names.index(name)
        pq.write_table(table.set_column(place, table.schema.field(name), [asked]), file)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sets": ["other"]}, "has no other; it has all"),
        ({"metric": "anls"}, "nothing to calibrate: .* none of whose figures is of one"),
        ({"metric": "perplexity"}, "metric='perplexity' falls as answers get better"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    location = scored_evaluation(tmp_path, 20)
    with pytest.raises(SpecError, match=said):
        calibrated(location, **fields)
    with pytest.raises(SpecError, match="fewer than 100"):
        calibrated(location)
    with pytest.raises(SpecError, match="registry and name go together"):
        calibrated(location, registry="models")


@pytest.mark.slow
def test_annotation_by_a_version_with_a_calibration_has_confidences(
    tmp_path: Path, make_spec: SpecFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    bundled = str(BUNDLED_CHECKPOINT)
    digest = digest_of(Resolved(bundled, None), tokenizer_beside(bundled))
    location = scored_evaluation(tmp_path, checkpoint=bundled, sha256=digest, max_new_tokens=6)
    models = str(tmp_path / "models")
    summary = calibrated(location, registry=models, name="reader")
    version = registry.read(models).models["reader"].version("1")
    assert summary.version == 1
    assert version
    assert version.calibration
    assert Path(version.calibration).read_bytes() == Path(summary.calibration).read_bytes()

    def spec(**fields: Any) -> AnnotateSpec:
        asked: dict[str, Any] = {
            "checkpoint": "registry://reader@1",
            "registry": models,
            "sampling": {},
        }
        asked |= {"input": str(SAMPLE / "scene_00.jpg"), "prompts": [*PROMPTS, FREE, "ocr", DETECT]}
        return make_spec(**asked | fields)

    run = annotate_here(spec())
    rows = pq.read_table(f"{run.location}/part-00000.parquet").to_pylist()
    shelf, free, ocr, boxes = rows
    assert 0 < shelf["confidence"] < 1
    assert 0 < free["confidence"] < 1
    assert ocr["confidence"] is None
    assert boxes["confidence"] is None
    assert all(0 < box["confidence"] < 1 for box in boxes["detections"])
    assert run.calibration
    assert run.calibration in version.calibration
    assert "no confidence of 'ocr', which was not calibrated" in capsys.readouterr().out
    # What is decoded otherwise has none, and is refused where the spec names the calibration.
    other = annotate_here(spec(run_id="other", prompts=PROMPTS, max_new_tokens=7))
    assert other.calibration is None
    assert "max_new_tokens was 6, is 7" in capsys.readouterr().out
    named = {"calibration": summary.calibration, "max_new_tokens": 7}
    with pytest.raises(SpecError, match=r"calibration=.*: .*max_new_tokens was 6, is 7"):
        annotate_here(spec(run_id="named", **named))
    # Of answers that are accepted, all has to be as it was calibrated.
    accept: dict[str, Any] = {"accept": {"precision": 0.8}}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"max_new_tokens": 7}, r"accept: .*max_new_tokens was 6, is 7"),
        ({}, r"accept: 'ocr' was not calibrated"),
        ({"checkpoint": bundled, "registry": None}, "accept: the checkpoint has no calibration"),
    ]
    for fields, said in refused:
        with pytest.raises(SpecError, match=said):
            annotate_here(spec(run_id="refused", **accept, **fields))
        # Nothing was planned: the same run goes on once it is calibrated.
        assert not list(Path(run.location).parent.glob("run_id=refused/_plan/*"))
    capsys.readouterr()
    accepted = annotate_here(
        spec(run_id="accepted", prompts=[*PROMPTS, DETECT], accept={"precision": 0.999})
    )
    assert accepted.accepted == 0
    assert accepted.not_accepted == 1 + len(boxes["detections"])
    assert f"no answer to {SHELF!r} is accepted" in capsys.readouterr().out
    wrong = Calibration.parse(json.loads(Path(summary.calibration).read_text()))
    wrong = wrong.model_copy(update={"checkpoint_sha256": "6" * 64})
    Path(summary.calibration).write_text(wrong.model_dump_json())
    with pytest.raises(SpecError, match=re.compile("fitted to answers of the checkpoint 6666")):
        annotate_here(spec(run_id="wrong", calibration=summary.calibration))
