"""Prompts with choices: one of them is the answer, and each has its probability."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from paliflow.benchmarks.digits import scenes
from paliflow.configs import AnnotateSpec
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs.annotate.predictor import Predictor
from paliflow.jobs.annotate.questions import Question, questions
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item, to_items, to_table
from paliflow.jobs.sources.items import items
from paliflow.model import BUNDLED_CHECKPOINT, PaliGemma, Tokenizer
from paliflow.model.images import resize
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import write_rows

LEFTMOST = "answer en what is the leftmost digit?"
DIGITS = {"ask": LEFTMOST, "choices": "0..9", "name": "first"}


@pytest.fixture(scope="module")
def model() -> PaliGemma:
    return PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT)


def predictor(model: PaliGemma, spec: AnnotateSpec) -> Predictor:
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    return Predictor(model, tokenizer, None, spec)


def shown(model: PaliGemma, item: Item, scene: scenes.Scene) -> Input:
    pixels = resize(scene.image, model.config.image_size)
    return Input(item, pixels=pixels, width=scene.image.width, height=scene.image.height)


def test_choices_are_answered_beside_each_other_and_add_up_to_one(
    model: PaliGemma, make_spec: SpecFactory
) -> None:
    own = "answer en is there a 7?"
    spec = make_spec(
        input="x",
        batch_size=8,
        prompts=[
            {"ask": own, "choices_column": "options", "top_choices": 1},
            DIGITS,
        ],
    )
    rng = np.random.default_rng(3)
    drawn = [scenes.compose(rng, "test", scale=2) for _ in range(6)]
    cells = ["yes/no", '["no", "yes", "9"]', "[1", "", '["a", "a"]', "yes/no"]
    batch = [
        shown(
            model, Item(f"{n}", prompts=(own, LEFTMOST), asks=(0, 1), choices=(cell, None)), scene
        )
        for n, (cell, scene) in enumerate(zip(cells, drawn, strict=True))
    ]
    batch.append(Input(Item("broken", prompts=(LEFTMOST,)), error="empty file"))
    asking = predictor(model, spec)
    rows = asking.collect(asking.ask(batch, (0, 0)))
    assert [len(row) for row in rows] == [2, 2, 2, 2, 2, 2, 1]
    for (yes, first), scene in zip(rows, drawn, strict=False):
        assert (yes["prompt"], first["prompt"]) == (own, LEFTMOST)
        assert (yes["name"], first["name"]) == (None, "first")
        probabilities = [choice["probability"] for choice in first["choices"]]
        assert first["text"] == first["choices"][0]["label"]
        assert {choice["label"] for choice in first["choices"]} == set("0123456789")
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-6)
        assert 0.9 < first["choices_mass"] <= 1
        whole = first["choices_mass"] * probabilities[0]
        assert np.exp(first["logprob"]) == pytest.approx(whole, rel=1e-5)
        assert (first["token_count"], first["finished"], first["detections"]) == (2, True, None)
        assert first["text"] == scene.digits[0].label
    for number in (0, 1, 5):
        assert rows[number][0]["text"] in ("yes", "no")
        assert len(rows[number][0]["choices"]) == 1
    flat = [row for own in rows for row in own]
    kept = pa.Table.from_pylist(flat, ANNOTATIONS).to_pylist()
    for row, stored in zip(flat, kept, strict=True):
        labels = [choice["label"] for choice in row.get("choices") or ()]
        assert [choice["label"] for choice in stored["choices"] or ()] == labels
        assert (stored["choices_mass"] is None) == (not labels)
    errors = [rows[number][0]["error"] for number in (2, 3, 4)]
    assert errors == [
        "prompt: choices_column='options': it is no list in JSON",
        "prompt: choices_column='options': it has 1 choices; give 2 to 10000, or `yes/no`, or a "
        "range such as `0..20`",
        "prompt: choices_column='options': the choice 'a' is there twice",
    ]
    assert (rows[6][0]["error"], rows[6][0]["name"]) == ("empty file", "first")


def test_closed_detections_have_the_labels_asked_for_and_say_how_sure_they_are(
    model: PaliGemma, make_spec: SpecFactory
) -> None:
    own = "detect {what}"
    spec = make_spec(
        input="x",
        batch_size=4,
        max_new_tokens=24,
        sampling={},
        prompts=["answer en is there a 7?", {"ask": own, "closed": True, "name": "boxes"}],
    )
    rng = np.random.default_rng(5)
    drawn = [scenes.compose(rng, "test", scale=2) for _ in range(3)]
    asked = ["detect digit", "detect 1 ; 2 ; 3", "detect ;"]
    batch = [
        shown(model, Item(f"{n}", prompts=(prompt,), asks=(1,)), scene)
        for n, (prompt, scene) in enumerate(zip(asked, drawn, strict=True))
    ]
    asking = predictor(model, spec)
    (digits,), (each,), (error,) = asking.collect(asking.ask(batch, (0, 0)))
    assert error["error"] == "prompt: it names no label"
    assert [d["label"] for d in digits["detections"]] == ["digit"] * len(drawn[0].digits)
    assert {d["label"] for d in each["detections"]} <= {"1", "2", "3"}
    for row in (digits, each):
        assert (row["name"], row["finished"]) == ("boxes", True)
        assert row["mean_logprob"] == pytest.approx(row["logprob"] / row["token_count"])
        assert row["logprob"] <= row["min_logprob"] <= row["mean_logprob"] <= 0
    for found in digits["detections"]:
        assert 0 < found["location_mass"] <= 1
        assert 0.9 < found["label_probability"] <= 1


def test_rows_of_a_manifest_fill_prompts_and_give_choices(tmp_path: Path) -> None:
    table: list[dict[str, Any]] = [
        {"image": "a.png", "what": "left", "options": ["x", "y"], "more": "ocr"},
        {"image": "b.png", "what": None, "options": [1, 2], "more": "caption en"},
    ]
    write_rows(tmp_path / "list.jsonl", table)
    prompts: list[Any] = [
        "caption en",
        {"ask": "answer en {what}", "choices_column": "options", "name": "own"},
        {"ask": "answer en is it?", "choices": "yes/no"},
    ]
    spec = AnnotateSpec.parse(
        {"input": str(tmp_path / "list.jsonl"), "output": "o", "run_id": "r", "prompts": prompts}
        | {"prompt_column": "more"}
    )
    found = list(items(spec))
    assert to_items(to_table(found)) == found  # the plan keeps what they are asked
    yes_no = Question("answer en is it?", None, ("yes", "no"))
    assert questions(found[0], spec) == [
        Question("caption en"),
        Question("answer en left", "own", ("x", "y")),
        yes_no,
        Question("ocr"),
    ]
    # A prompt without its column is not asked; one that is asked already is asked once.
    assert questions(found[1], spec) == [Question("caption en"), yes_no]


def test_prompts_that_are_left_of_a_specs_own_keep_their_choices() -> None:
    prompts: list[Any] = ["ocr", DIGITS]
    spec = AnnotateSpec.parse({"input": "x", "output": "o", "run_id": "r", "prompts": prompts})
    digits = Question(LEFTMOST, "first", tuple("0123456789"))
    assert questions(Item("a"), spec) == [Question("ocr"), digits]
    assert questions(Item("a", prompts=(LEFTMOST,)), spec) == [digits]
