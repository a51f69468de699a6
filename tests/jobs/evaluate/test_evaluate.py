"""An evaluation asks held-out examples, scores the answers, and can be resumed and compared."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from paliflow.benchmarks.digits import scenes
from paliflow.configs import EvaluateSpec, EvaluateSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.annotate.questions import questions
from paliflow.jobs.evaluate import job
from paliflow.jobs.evaluate.asking import (
    asking_run,
    right_answers,
    scoring_run,
    write_questions,
)
from paliflow.jobs.evaluate.predictions import stored_predictions
from paliflow.jobs.evaluate.rescoring import rescore
from paliflow.jobs.evaluate.results import falls
from paliflow.jobs.examples.plan import write_examples
from paliflow.jobs.registry import aliases as registry
from paliflow.jobs.registry.aliases import Weights
from paliflow.jobs.runs.error_limits import ErrorLimitError
from paliflow.model import (
    BUNDLED_CHECKPOINT,
    Detection,
    PaliGemma,
    Tokenizer,
    checkpoint_sha256,
    format_detections,
    local_copy,
    preprocess,
)
from paliflow.tests.jobs.here import evaluate_here
from paliflow.tests.summaries import made_up
from paliflow.tests.waiting import until

COUNT = "answer en how many digits are there?"
SCENES = 12


def evaluate(spec: EvaluateSpec) -> EvaluateSummary:
    return job.evaluate(spec, Console())


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of digits, how many there are and where; one more image is broken."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(7)
    counts, boxes = [], []
    for number in range(SCENES):
        scene = scenes.compose(rng, "test", scale=2)
        name, (width, height) = f"{number:02d}.png", scene.image.size
        scene.image.save(folder / name)
        counts.append({"image": name, "prefix": COUNT, "suffix": str(len(scene.digits))})
        digits = [Detection("digit", d.y_min, d.x_min, d.y_max, d.x_max) for d in scene.digits]
        boxes.append({"image": name, "suffix": format_detections(digits, width, height)})
    (folder / "broken.png").write_bytes(b"not an image")
    counts.insert(3, {"image": "broken.png", "prefix": COUNT, "suffix": "1"})
    for file, rows in (("counts.jsonl", counts), ("boxes.jsonl", boxes)):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def spec_of(examples: Path, output: Path, **fields: Any) -> EvaluateSpec:
    defaults = {
        "output": str(output),
        "run_id": "test",
        "sets": {
            "counts": {"path": str(examples / "counts.jsonl")},
            "boxes": {
                "path": str(examples / "boxes.jsonl"),
                "prefix": "detect digit",
                "metrics": ["detection_f1", "detection_ap", "coco_ap"],
            },
        },
        "max_new_tokens": 24,
        "shard_size": 10,
    }
    return EvaluateSpec.parse(defaults | fields)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose `digits@production` is the bundled checkpoint."""
    folder = tmp_path_factory.mktemp("registry")
    with local_copy(BUNDLED_CHECKPOINT) as path:
        sha256 = checkpoint_sha256(path)
    number = registry.register(str(folder), "digits", Weights(str(BUNDLED_CHECKPOINT), sha256))
    registry.move(str(folder), "digits", "production", number, "the first")
    return folder


@pytest.fixture(scope="module")
def finished(
    examples: Path, bundled: Path, tmp_path_factory: pytest.TempPathFactory
) -> EvaluateSummary:
    fields = {"checkpoint": "registry://digits@production", "registry": str(bundled)}
    return evaluate_here(spec_of(examples, tmp_path_factory.mktemp("outputs") / "evals", **fields))


def unfinished(finished: EvaluateSummary, output: Path) -> Path:
    """A copy of the evaluation that has its answers, but no scores and no manifest."""
    location = Path(finished.location)
    copy = output / location.name
    shutil.copytree(location, copy)
    for lost in ("_manifest.json", "predictions.parquet", "figures.json"):
        (copy / lost).unlink()
    (copy / "_answers" / location.name / "_manifest.json").unlink()
    return copy


def test_figures_are_those_of_the_tasks(finished: EvaluateSummary) -> None:
    assert finished.figures.keys() == {
        *("counts/vqa_accuracy", "boxes/detection_f1", "boxes/detection_ap", "boxes/coco_ap")
    }
    assert finished.figures["counts/vqa_accuracy"] >= 0.7
    assert finished.figures["boxes/detection_f1"] >= 0.5
    assert finished.figures["boxes/detection_ap"] >= 0.5
    assert 0.2 <= finished.figures["boxes/coco_ap"] < finished.figures["boxes/detection_ap"]
    written = json.loads(Path(finished.location, "figures.json").read_text())
    assert written == finished.figures
    assert (finished.examples, finished.errors) == (2 * SCENES + 1, 1)
    assert finished.chip_seconds["cpu"] > finished.stages.on_device > 0
    assert [reason.split(":")[0] for reason in finished.error_reasons] == ["not an image"]


def test_predictions_say_what_was_asked_what_is_right_and_what_was_said(
    finished: EvaluateSummary, examples: Path
) -> None:
    rows = pq.read_table(f"{finished.location}/predictions.parquet").to_pylist()
    asked = [json.loads(line) for line in (examples / "counts.jsonl").read_text().splitlines()]
    assert [row["set"] for row in rows] == ["counts"] * (SCENES + 1) + ["boxes"] * SCENES
    for number, (row, wanted) in enumerate(zip(rows, asked, strict=False)):
        assert (row["id"], row["prefix"]) == (str(number), COUNT)
        assert row["image"] == str(examples / wanted["image"])
        assert row["references"] == [wanted["suffix"]]
        assert row["detection_f1"] is None
        right = float(row["text"] == wanted["suffix"])
        assert row["vqa_accuracy"] == {"numerator": right, "denominator": 1.0}
    broken = rows[3]
    assert (broken["status"], broken["text"]) == ("error", None)
    assert broken["error"].startswith("not an image")
    assert rows[-1]["text"].startswith("<loc")


def test_a_figure_is_the_ratio_of_its_sums(finished: EvaluateSummary) -> None:
    ((f1,),) = duckdb.execute(
        "SELECT sum(detection_f1.numerator) / sum(detection_f1.denominator) "
        f"FROM '{finished.location}/predictions.parquet' WHERE set = 'boxes'"
    ).fetchall()
    assert f1 == pytest.approx(finished.figures["boxes/detection_f1"])


def test_the_manifest_keeps_the_alias_and_says_what_it_was(finished: EvaluateSummary) -> None:
    assert finished.spec["checkpoint"] == "registry://digits@production"
    assert finished.checkpoint == str(BUNDLED_CHECKPOINT)
    with local_copy(BUNDLED_CHECKPOINT) as path:
        assert finished.checkpoint_sha256 == checkpoint_sha256(path)


def test_a_finished_evaluation_is_not_done_again(finished: EvaluateSummary) -> None:
    assert evaluate(EvaluateSpec.parse(finished.spec)) == finished
    with pytest.raises(SpecError, match="max_new_tokens was 24, is 25"):
        evaluate(EvaluateSpec.parse(finished.spec | {"max_new_tokens": 25}))


def test_a_resumed_evaluation_is_the_same_though_the_alias_moved(
    finished: EvaluateSummary, bundled: Path, tmp_path: Path
) -> None:
    location = Path(finished.location)
    resumed = unfinished(finished, tmp_path / "evals")
    (resumed / "_answers" / location.name / "part-00001.parquet").unlink()
    registry.register(str(bundled), "digits", Weights("/not/there.npz", "0" * 64))
    registry.move(str(bundled), "digits", "production", 2, "a mistake")
    again = evaluate_here(EvaluateSpec.parse(finished.spec | {"output": str(tmp_path / "evals")}))
    registry.rollback(str(bundled), "digits", "production", "the test is over")
    assert again.figures == finished.figures
    assert again.checkpoint == finished.checkpoint
    tables = [pq.read_table(f / "predictions.parquet") for f in (location, resumed)]
    assert tables[0].equals(tables[1])


def test_weights_that_are_not_those_registered_are_refused(examples: Path, tmp_path: Path) -> None:
    where = str(tmp_path / "registry")
    registry.register(where, "digits", Weights(str(BUNDLED_CHECKPOINT), "0" * 64))
    fields = {"checkpoint": "registry://digits@1", "registry": where}
    with pytest.raises(SpecError, match=r"but the registry says 0{64}: the file was changed"):
        evaluate_here(spec_of(examples, tmp_path / "evals", **fields))


def test_too_many_errors_stop_it(finished: EvaluateSummary, tmp_path: Path) -> None:
    unfinished(finished, tmp_path / "evals")
    fields = {"output": str(tmp_path / "evals"), "max_errors": 0}
    with pytest.raises(ErrorLimitError, match="max_errors=0: 1 of 10 inputs failed"):
        evaluate(EvaluateSpec.parse(finished.spec | fields))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [{"image": ["a.png", "b.png"], "prefix": COUNT, "suffix": "1"}],
            r"sets.held_out: example '0' has 2 images",
        ),
        (
            [{"image": "a.png", "prefix": p, "suffix": "1"} for p in (COUNT, "ocr")],
            r"set 'held_out': its prefixes are of the tasks answer, ocr; give `metrics`",
        ),
    ],
)
def test_what_cannot_be_asked_or_scored_is_refused_before_a_model_is_loaded(
    tmp_path: Path, rows: list[dict[str, Any]], expected: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SpecError, match=expected):
        evaluate(spec_of(tmp_path, tmp_path / "evals", sets={"held_out": {"path": str(file)}}))


def test_the_digest_of_examples_is_of_what_is_asked_and_right(
    examples: Path, tmp_path: Path
) -> None:
    lines = (examples / "counts.jsonl").read_text().splitlines()

    def digest(name: str, content: list[str]) -> str:
        (tmp_path / f"{name}.jsonl").write_text("\n".join(content))
        source = {"path": str(tmp_path / f"{name}.jsonl"), "images": str(examples)}
        spec = spec_of(examples, tmp_path, sets={"x": source}, run_id=name)
        plan = write_examples(spec.location, spec.sets, spec)
        return write_questions(spec.location, plan)[1]

    before = digest("a", lines)
    assert digest("b", lines) == before
    assert digest("c", lines[1:]) != before
    assert digest("d", [lines[0].replace(COUNT, "ocr"), *lines[1:]]) != before
    assert digest("e", [lines[0].replace('"suffix": "', '"suffix": "1'), *lines[1:]]) != before


def test_what_is_right_is_scored_once_each_as_the_only_choice(
    examples: Path, tmp_path: Path
) -> None:
    row = {"image": "00.png", "prefix": COUNT, "suffix": ["2", "two", "2", "3"]}
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    own = {"path": str(tmp_path / "set.jsonl"), "metrics": ["perplexity"]}
    alias = {"checkpoint": "registry://counts@production", "registry": "models"}
    spec = spec_of(examples, tmp_path / "evals", sets={"own": own}, max_usd=5.0, **alias)
    plan = write_examples(spec.location, spec.sets, spec)
    (item,) = right_answers(spec.location, plan, ["own"])
    answers = made_up("/answers", checkpoint="models/1.npz", usd=3.0)
    scoring = scoring_run(asking_run(spec, "questions.parquet"), answers)
    assert [(each.prompt, each.choices) for each in questions(item, scoring)] == [
        (COUNT, (text,)) for text in ("2", "two", "3")
    ]
    # Of the weights that have answered, whatever the alias is by now; for what they have left.
    assert (scoring.checkpoint, scoring.registry, scoring.max_usd) == ("models/1.npz", None, 2.0)


@pytest.mark.slow  # another run, and a program to compare with
def test_perplexity_is_of_the_right_answers_by_teacher_forcing(
    examples: Path, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"image": "00.png", "prefix": COUNT, "suffix": ["2", "3", "2"]},
        {"image": "broken.png", "prefix": COUNT, "suffix": "1"},
        {"image": "01.png", "prefix": "caption en", "suffix": "a page with a digit"},
    ]
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"path": str(file), "images": str(examples), "metrics": ["perplexity"]}
    fields = {"dtype": "float32", "decode": "exact", "max_error_fraction": 1, "sets": {"own": own}}
    summary = evaluate_here(spec_of(examples, tmp_path / "evals", **fields))
    predictions = list(stored_predictions(summary.location))
    known = [row["details"].get("likelihood") for row in predictions]
    assert known[1] is None

    nats, tokens = [0.0] * 3, [0] * 3
    with local_copy(BUNDLED_CHECKPOINT) as path:
        model = PaliGemma.from_checkpoint(path, dtype="float32")
        tokenizer = Tokenizer.from_file(path.with_name("tokenizer.model"))
    for number in (0, 2):
        image = preprocess(Image.open(examples / rows[number]["image"]), model.config.image_size)
        for suffix in predictions[number]["references"]:
            asked = tokenizer.encode_prompt(rows[number]["prefix"], 64)
            said = [*tokenizer.encode(suffix), tokenizer.eos_id]
            text = np.array([[*asked, *said]])
            mask_ar = np.array([[0] * len(asked) + [1] * len(said)])
            logprobs = jax.nn.log_softmax(model.logits(image[None], text, mask_ar))[0]
            for place, token in enumerate(said, len(asked) - 1):
                nats[number] -= float(logprobs[place, token])
            tokens[number] += len(said)
    assert [known[n] for n in (0, 2)] == [pytest.approx([nats[n], tokens[n]]) for n in (0, 2)]
    figure = summary.figures["own/perplexity"]
    assert figure == pytest.approx(np.exp(sum(nats) / sum(tokens)))
    low, high = summary.sets["own"].intervals["perplexity"]
    assert low <= figure <= high
    assert rescore(summary.location, Console()).figures == summary.figures
    assert falls(summary, "own/perplexity")


def test_scoring_again_knows_how_sure_the_model_was_of_its_boxes(
    finished: EvaluateSummary, tmp_path: Path
) -> None:
    copy = tmp_path / "evals" / Path(finished.location).name
    shutil.copytree(finished.location, copy)
    assert rescore(str(copy), Console()).figures == finished.figures


@pytest.mark.slow
def test_a_killed_evaluation_is_resumed_to_the_same_predictions(
    finished: EvaluateSummary, cluster: str, tmp_path: Path
) -> None:
    fields = {"output": str(tmp_path / "evals"), "actors": 1}
    spec = EvaluateSpec.parse(finished.spec | fields)
    code = (
        "import sys; from rich.console import Console; from paliflow.configs import EvaluateSpec;"
        "from paliflow.jobs.evaluate.job import evaluate;"
        "evaluate(EvaluateSpec.parse(sys.argv[1]), Console(), sys.argv[2])"
    )
    answers = Path(spec.location, "_answers", "run_id=test")
    with subprocess.Popen([sys.executable, "-c", code, spec.model_dump_json(), cluster]) as driver:
        until((answers / "part-00000.parquet").exists, 300, running=driver, every_s=0.01)
        driver.kill()
    assert not Path(spec.location, "_manifest.json").exists()
    assert evaluate(spec).figures == finished.figures
    tables = [
        pq.read_table(f"{location}/predictions.parquet")
        for location in (finished.location, spec.location)
    ]
    assert tables[0].equals(tables[1])
