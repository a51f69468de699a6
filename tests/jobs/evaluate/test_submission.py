"""Answers become the file that a benchmark's server takes, and its score is kept."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paliflow.configs import EvaluateSummary, EvaluationSet
from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import benchmark, benchmark_names
from paliflow.configs.schema import PREDICTIONS
from paliflow.jobs.evaluate.results import read_evaluation
from paliflow.jobs.evaluate.scoreboard import entries_of, said
from paliflow.jobs.evaluate.submission import record_score, write_submission
from paliflow.jobs.examples.example import Example
from paliflow.jobs.examples.sources import read_examples
from paliflow.jobs.runs.outputs import write_manifest

Details = dict[str, Any]
Rows = list[tuple[str | None, Details]]


def answered(folder: Path, name: str, asked: Rows, split: str, **fields: Any) -> str:
    """A finished evaluation of a whole split: what was answered, and the details of some rows."""
    location = folder / f"run_id={name}"
    location.mkdir(parents=True)
    known = [
        {"set": name, "id": str(n), "text": text, "details": json.dumps(details)}
        for n, (text, details) in enumerate(asked)
    ]
    table = pa.Table.from_pylist(known, pa.schema(PREDICTIONS))
    pq.write_table(table, location / "predictions.parquet")
    of_card = split == benchmark(name).published_split
    count = benchmark(name).published_rows if of_card else len(asked)
    counts = {"rows": count, "of": count, "broken": 0, "answered": count, "scored": 0}
    own = {"benchmark": name, "split": split, **counts, **fields}
    now = datetime.now(UTC)
    summary = {
        "run_id": name, "location": str(location), "spec": {}, "started": now, "finished": now,
        "seconds": 1.0, "versions": {}, "checkpoint": "a.npz", "checkpoint_sha256": "a",
        "examples": len(asked), "errors": 0, "examples_sha256": "e", "figures": {},
        "sets": {name: own}, "image_size": 224,
    }  # fmt: skip
    write_manifest(EvaluateSummary.parse(summary))
    return str(location)


def sent(tmp_path: Path, *runs: str) -> Any:
    count = write_submission(runs, str(tmp_path / "sent.json"))
    content = json.loads((tmp_path / "sent.json").read_text())
    assert len(content) == count
    return content


@pytest.mark.parametrize(
    ("name", "split", "key", "expected"),
    [
        ("vqav2", "test-std", 7, {"question_id": 7, "answer": " Two "}),
        ("textvqa", "test-std", 7, {"question_id": 7, "answer": " Two "}),
        ("vizwiz", "test-std", "a.jpg", {"image": "a.jpg", "answer": " Two "}),
        ("docvqa", "test", 7, {"questionId": 7, "answer": " Two "}),
        ("infovqa", "test", 7, {"questionId": 7, "answer": " Two "}),
        ("stvqa", "test", 7, {"question_id": 7, "answer": " Two "}),
        ("nocaps", "test", 7, {"image_id": 7, "caption": " Two "}),
    ],
)
def test_a_server_gets_raw_answers_by_ids_of_its_own_type(
    tmp_path: Path, name: str, split: str, key: object, expected: Details
) -> None:
    last = 8 if isinstance(key, int) else "b.jpg"
    rows: Rows = [(" Two ", {"key": key}), (None, {"key": last})]
    content = sent(tmp_path, answered(tmp_path, name, rows, split))
    assert content[0] == expected
    assert list(content[1].values()) == [last, ""]  # of a missing image
    assert isinstance(content[0][next(iter(expected))], type(key))


def test_both_tasks_of_a_okvqa_are_one_file_and_choices_are_snapped_to(tmp_path: Path) -> None:
    choices = ["a red bus", "two dogs"]
    chosen: Rows = [
        (text, {"key": key, "choices": choices})
        for key, text in (("q", "Two dog"), ("r", "a red bus"))
    ]
    free: Rows = [("dogs", {"key": "q"}), ("bus", {"key": "r"})]
    first = answered(tmp_path, "aokvqa_mc", chosen, "test")
    second = answered(tmp_path, "aokvqa_da", free, "test")
    assert sent(tmp_path, first, second) == {
        "q": {"multiple_choice": "two dogs", "direct_answer": "dogs"},
        "r": {"multiple_choice": "a red bus", "direct_answer": "bus"},
    }


@pytest.mark.parametrize(
    ("rows", "fields", "expected"),
    [
        ([("a", {"key": "7"})], {}, "question_id='7' has to be a number"),
        ([("a", {"key": 7}), ("b", {"key": 7})], {}, "two rows have the same id"),
        ([("a", {"key": 7})], {"rows": 1, "of": 9}, "asked 1 of 9 rows; the server wants all"),
        # As a prepared folder, whose builder left out what had no image.
        ([("a", {"key": 7})], {"rows": 9, "of": 9}, "asked 9 rows of test-std, which has 447,793"),
        ([("a", {"key": 7})], {"split": "val"}, "is of split 'val'; a server scores: test-std"),
    ],
)
def test_what_a_server_would_refuse_is_not_written(
    tmp_path: Path, rows: Any, fields: Details, expected: str
) -> None:
    run = answered(tmp_path, "vqav2", rows, **{"split": "test-std", **fields})
    with pytest.raises(SpecError, match=expected):
        write_submission([run], str(tmp_path / "sent.json"))
    assert not (tmp_path / "sent.json").exists()


def test_the_score_of_a_server_stands_in_the_scoreboard(tmp_path: Path) -> None:
    run = answered(tmp_path, "vqav2", [("a", {"key": 7})], "test-std", rows=1)
    record_score(run, "accuracy", 83.0)
    (entry,) = entries_of(read_evaluation(run).summary)
    assert said(entry) == "83.00 by the server -0.19 (of 1 rows, published of 447,793)"
    with pytest.raises(SpecError, match="'acc' is no figure of vqav2; it has accuracy"):
        record_score(run, "acc", 83.0)


def unanswered() -> Iterator[tuple[str, str]]:
    for name in benchmark_names():
        yield from ((name, split) for split in benchmark(name).unanswered)


def test_rows_whose_answers_a_server_has_are_read_without_them(tmp_path: Path) -> None:
    image = "v2_OpenEnded_mscoco_test2015_questions.json"
    question = {"question_id": 1, "image_id": 2, "question": "what?"}
    (tmp_path / image).write_text(json.dumps({"questions": [question]}))
    source = EvaluationSet(path=str(tmp_path), benchmark="vqav2", split="test-std")
    (row,) = read_examples(source, ())
    assert isinstance(row, Example)
    assert (row.suffixes, row.images[0][-16:]) == ((), "000000000002.jpg")
    assert {name for name, _ in unanswered()} == {
        "vqav2", "aokvqa_mc", "aokvqa_da", "vizwiz", "textvqa", "docvqa", "infovqa", "stvqa",
        "nocaps",
    }  # fmt: skip
