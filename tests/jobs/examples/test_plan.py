"""The plan of examples: made once, counted, thinned, and opened without loading it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.configs.examples import EvaluationSet, ExampleSource
from paliflow.configs.finetune import FineTuneSpec
from paliflow.jobs.examples.plan import (
    open_examples,
    read_plan,
    sources_of,
    write_examples,
)
from paliflow.jobs.examples.sources import read_examples
from paliflow.jobs.runs.error_limits import ErrorLimitError


def lines(count: int, **fields: Any) -> bytes:
    rows = ({"image": f"{n}.jpg", "prefix": "ocr", "suffix": f"text {n}"} for n in range(count))
    return "".join(f"{json.dumps(row | fields)}\n" for row in rows).encode()


def spec_of(folder: Path, **fields: Any) -> FineTuneSpec:
    given = {"output": f"{folder}/out", "run_id": "tuned", "train": [{"path": f"{folder}/t.jsonl"}]}
    return FineTuneSpec.parse(given | fields)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_planned_is_opened_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines(20_000))
    spec = spec_of(tmp_path)
    plan = write_examples(spec.location, sources_of(spec), spec)
    expected = list(read_examples(spec.train[0], ()))
    examples = open_examples(spec.location, plan, "train/0")
    assert len(examples) == plan.source("train/0").examples == 20_000
    assert list(examples) == expected
    for index in (0, 8191, 8192, 19_999, -1):
        assert examples[index] == expected[index]
    assert examples[8190:8195] == expected[8190:8195]
    with pytest.raises(IndexError):
        examples[20_000]
    with pytest.raises(KeyError):
        open_examples(spec.location, plan, "train/1")


def test_a_plan_is_made_once_whatever_becomes_of_its_sources(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines(3))
    spec = spec_of(tmp_path)
    assert read_plan(spec.location) is None
    plan = write_examples(spec.location, sources_of(spec), spec)
    (tmp_path / "t.jsonl").write_bytes(lines(5, suffix="other"))
    assert write_examples(spec.location, sources_of(spec), spec) == plan == read_plan(spec.location)
    assert [e.suffixes for e in open_examples(spec.location, plan, "train/0")] == [
        (f"text {n}",) for n in range(3)
    ]
    assert len(files_of(tmp_path / "out")) == 2


def test_the_first_of_two_to_finish_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines(3))
    spec = spec_of(tmp_path)
    plan = write_examples(spec.location, sources_of(spec), spec)
    (tmp_path / "t.jsonl").write_bytes(lines(5))
    looked = iter([None, plan])
    monkeypatch.setattr("paliflow.jobs.examples.plan.read_plan", lambda run: next(looked))
    assert write_examples(spec.location, sources_of(spec), spec) == plan
    assert len(files_of(tmp_path / "out")) == 2


def test_sources_are_counted_with_what_is_wrong_in_them(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines(8) + lines(2, suffix="") + b"{\n")
    (tmp_path / "v.jsonl").write_bytes(lines(4))
    held_out = {"held_out": {"path": f"{tmp_path}/v.jsonl"}}
    train = [{"path": f"{tmp_path}/t.jsonl", "weight": 3}, {"path": f"{tmp_path}/v.jsonl"}]
    spec = spec_of(tmp_path, train=train, validation=held_out, max_error_fraction=0.5)
    plan = write_examples(spec.location, sources_of(spec), spec)
    reasons = {"no suffix": 2, "the line is not a JSON object": 1}
    roots = (str(tmp_path),)
    assert [tuple(value for _, value in source) for source in plan.sources] == [
        ("train/0", 8, 3.0, 3, reasons, roots, None, {}),
        ("train/1", 4, 1.0, 0, {}, roots, None, {}),
        ("held_out", 4, 1.0, 0, {}, roots, None, {}),
    ]
    assert plan.spec == spec.model_dump(mode="json")


@pytest.mark.parametrize("count", [1, 7, 9999, 10_000])
def test_of_a_set_so_many_are_taken_evenly_spread(tmp_path: Path, count: int) -> None:
    (tmp_path / "v.jsonl").write_bytes(lines(10_000))
    held_out = EvaluationSet(path=f"{tmp_path}/v.jsonl", max_examples=count)
    spec = spec_of(tmp_path)
    plan = write_examples(spec.location, {"held_out": held_out}, spec)
    examples = open_examples(spec.location, plan, "held_out")
    assert plan.sources[0].examples == len(examples) == count
    assert [e.id for e in examples] == [str(n * 10_000 // count) for n in range(count)]


@pytest.mark.parametrize("limit", [{"max_error_fraction": 0.2}, {"max_errors": 2}])
def test_too_many_bad_rows_stop_it_and_leave_nothing(
    tmp_path: Path, limit: dict[str, float]
) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines(8) + lines(2, suffix="") + b"{\n")
    spec = spec_of(tmp_path, **limit)
    with pytest.raises(ErrorLimitError, match="3 of 11 inputs failed: 2 x no suffix; 1 x the line"):
        write_examples(spec.location, sources_of(spec), spec)
    assert not files_of(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "nothing there"),
        (lines(2, suffix="") + lines(1, image=None), "2 x no suffix; 1 x no image"),
    ],
)
def test_a_source_without_an_example_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    spec = spec_of(tmp_path, max_error_fraction=1.0)
    with pytest.raises(SpecError, match=f"t.jsonl': no example in it .{message}"):
        write_examples(spec.location, sources_of(spec), spec)
    assert not files_of(tmp_path / "out")


def test_all_of_it_may_be_in_a_bucket(gcs: None) -> None:
    root = "gs://images/examples"
    storage.commit_if_absent(f"{root}/t.jsonl", io.BytesIO(lines(3)))
    spec = FineTuneSpec.parse(
        {"output": f"{root}/out", "run_id": "tuned", "train": [{"path": f"{root}/t.jsonl"}]}
    )
    plan = write_examples(spec.location, sources_of(spec), spec)
    assert plan == read_plan(spec.location)
    examples = open_examples(spec.location, plan, "train/0")
    assert [e.images for e in examples] == [(f"{root}/{n}.jpg",) for n in range(3)]


def test_a_validation_set_cannot_be_called_like_a_training_source() -> None:
    with pytest.raises(SpecError, match="validation"):
        FineTuneSpec.parse(
            {
                "output": "out",
                "run_id": "tuned",
                "train": [{"path": "t.jsonl"}],
                "validation": {"train/0": ExampleSource(path="t.jsonl").model_dump()},
            }
        )


def test_what_is_left_out_is_counted_beside_the_errors(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines(3) + lines(2, suffix=""))
    spec = spec_of(tmp_path, train=[{"path": f"{tmp_path}/t.jsonl", "empty": "drop"}], max_errors=0)
    plan = write_examples(spec.location, sources_of(spec), spec)
    assert plan.sources[0].dropped == {"an empty suffix": 2}
    assert plan.sources[0].errors == 0
    assert plan.dropped() == ["train/0: 2 x an empty suffix left out"]
    (tmp_path / "t.jsonl").write_bytes(lines(2, suffix=""))
    with pytest.raises(SpecError, match=r"no example in it \(2 x an empty suffix\)"):
        write_examples(f"{tmp_path}/other", sources_of(spec), spec)
