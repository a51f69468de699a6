"""Labelled tables: which rows are examples, why others are none, and what is refused."""

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs.base import SpecError
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.examples.example import truth
from paliflow.jobs.examples.sources import Example, read_examples
from paliflow.tests.jobs.files import write_rows


def found(path: object, *roots: str, **fields: Any) -> list[Example | str]:
    return list(read_examples(ExampleSource.parse({"path": str(path)} | fields), (), roots))


ROWS = [
    {"image": "a.jpg", "prefix": "answer en what?", "suffix": "a cat"},
    {"image": "/abs/b.jpg", "prefix": "caption en", "suffix": "ein Häs'chen; <loc0001>"},
    {"image": "gs://shop/c.jpg", "prefix": "ocr", "suffix": " padded "},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_are_examples_in_their_order(tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"train{suffix}", ROWS)
    images = [f"{tmp_path}/a.jpg", "/abs/b.jpg", "gs://shop/c.jpg"]
    assert found(path, "/abs", "gs://shop") == [
        Example(str(n), (images[n],), row["prefix"], (row["suffix"],)) for n, row in enumerate(ROWS)
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_lists_are_several_images_and_several_right_answers(tmp_path: Path, suffix: str) -> None:
    row = {"image": ["b.jpg", "a.jpg"], "prefix": "which?", "suffix": ["left", "left", "the left"]}
    assert found(write_rows(tmp_path / f"train{suffix}", [row])) == [
        Example("0", (f"{tmp_path}/b.jpg", f"{tmp_path}/a.jpg"), "which?", tuple(row["suffix"]))
    ]


def test_columns_folder_and_prefix_may_be_others(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", [{"file": "a.jpg", "label": "cat"}])
    assert found(
        path, image_column="file", suffix_column="label", prefix="name it", images="gs://shop/in"
    ) == [Example("0", ("gs://shop/in/a.jpg",), "name it", ("cat",))]


def test_a_prefix_of_the_spec_fills_in_for_rows_without_one(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "suffix": "x", "prefix": own} for own in ("ocr", "", None)]
    for suffix in (".jsonl", ".csv", ".parquet"):
        examples = found(write_rows(tmp_path / f"train{suffix}", rows), prefix="caption en")
        assert [e.prefix for e in examples if isinstance(e, Example)] == [
            "ocr",
            "caption en",
            "caption en",
        ]


GOOD = {"image": "a.jpg", "prefix": "ocr", "suffix": "x"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"image": "a.jpg", ', "the line is not a JSON object"),
        ("[1, 2]", "the line is not a JSON object"),
        ("[" * 100_000, "the line is not a JSON object"),
        (b'{"image": "a.jpg", "prefix": "ocr", "suffix": "\xff"}', "the line is not a JSON object"),
        (GOOD | {"image": None}, "no image"),
        (GOOD | {"image": ""}, "no image"),
        (GOOD | {"image": []}, "no image"),
        (GOOD | {"image": ["a.jpg", None]}, "no image"),
        (GOOD | {"image": 7}, "the image is neither a path nor a list of paths"),
        (GOOD | {"image": {"path": "a.jpg"}}, "the image is neither a path nor a list of paths"),
        (GOOD | {"prefix": " "}, "no prefix"),
        ({"image": "a.jpg", "suffix": "x"}, "no prefix"),
        (GOOD | {"prefix": ["ocr"]}, "the prefix is not text"),
        (
            GOOD | {"prefix": "<image>OCR"},
            "prefix: the task 'OCR' is spelt 'ocr'; as it is, the model does not know it",
        ),
        (GOOD | {"suffix": None}, "no suffix"),
        (GOOD | {"suffix": "\n"}, "no suffix"),
        (GOOD | {"suffix": []}, "no suffix"),
        (GOOD | {"suffix": ["", None]}, "no suffix"),
        (GOOD | {"suffix": 7}, "the suffix is neither text nor a list of texts"),
        (GOOD | {"suffix": ["x", 7]}, "the suffix is neither text nor a list of texts"),
    ],
)
def test_a_row_that_is_no_example_says_why_and_the_next_ones_are_read(
    tmp_path: Path, line: Any, reason: str
) -> None:
    bad = line if isinstance(line, str | bytes) else json.dumps(line)
    bad = bad if isinstance(bad, bytes) else bad.encode()
    good = json.dumps(GOOD).encode()
    path = tmp_path / "train.jsonl"
    path.write_bytes(good + b"\n\n" + bad + b"\n" + good)
    example = Example("0", (f"{tmp_path}/a.jpg",), "ocr", ("x",))
    assert found(path) == [example, reason, example._replace(id="2")]


def test_what_surrounds_a_prefix_is_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(GOOD | {"prefix": " <bos><image>ocr\n"}))
    assert found(path) == [Example("0", (f"{tmp_path}/a.jpg",), "ocr", ("x",))]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_an_empty_suffix_is_an_example_where_nothing_may_be_found(
    tmp_path: Path, suffix: str
) -> None:
    rows = [
        {"image": "a.jpg", "prefix": prefix, "suffix": ""}
        for prefix in ("detect dog", "segment cat", "ocr", "caption en")
    ]
    path = write_rows(tmp_path / f"train{suffix}", rows)
    wanted = [
        Example(str(n), (f"{tmp_path}/a.jpg",), str(row["prefix"]), ("",))
        for n, row in enumerate(rows)
    ]
    assert found(path) == [*wanted[:2], "no suffix", "no suffix"]
    assert found(path, empty="keep") == wanted
    assert found(path, empty="drop") == []
    dropped = Counter[str]()
    list(
        read_examples(
            ExampleSource.parse({"path": str(path), "empty": "drop"}), (), dropped=dropped
        )
    )
    assert dropped == {"an empty suffix": 4}


@given(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.none()))
)
def test_a_truth_value_is_true_false_or_refused(value: object) -> None:
    with contextlib.suppress(ValueError):
        assert truth(value) in (True, False)


def test_lone_surrogates_become_text_that_can_be_stored(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"image": "\\ud800.jpg", "prefix": "ocr \\udfff", "suffix": ["\\udead"]}')
    assert found(path) == [Example("0", (f"{tmp_path}/\\ud800.jpg",), "ocr \\udfff", ("\\udead",))]


def test_what_cannot_be_read_at_all_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "x.txt").touch()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    write_rows(tmp_path / "bytes.parquet", [{"image": b"\xff\xd8", "prefix": "ocr", "suffix": "x"}])
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("train.jsonl", {"suffix_column": "label"}, "suffix_column='label': no such column"),
        ("train.jsonl", {"image_column": "file"}, "there are image, prefix, suffix"),
        ("train.jsonl", {"prefix_column": "ask"}, "prefix_column='ask'"),
        ("train.jsonl", {"min_score": 0.5}, "min_score=0.5: only Paliflow's own annotations"),
        ("train.jsonl", {"prompts": ["ocr"]}, r"prompts=\('ocr',\): only Paliflow's own"),
        ("nothing.jsonl", {}, "there is no such file"),
        ("nothing", {}, "there is no such file, and no finished run"),
        ("x.txt", {}, "examples are read from .*, .json and from Paliflow's own annotations"),
        ("broken.parquet", {}, "Parquet"),
        ("bytes.parquet", {}, "image_column='image' holds binary, not paths"),
    ]
    for name, fields, message in refused:
        with pytest.raises(SpecError, match=f"path='{tmp_path / name}'.*{message}"):
            found(tmp_path / name, **fields)
    assert len(found(path, "/abs", "gs://shop")) == 3
    with pytest.raises(SpecError, match="https_hosts"):
        found("https://example.org/train.jsonl")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    line = json.dumps({"image": "a.jpg", "prefix": "caption en", "suffix": "a cat " * 10}) + "\n"
    path.write_text(line * 200_000)
    process = psutil.Process()
    before = process.memory_info().rss
    count = sum(1 for _ in read_examples(ExampleSource(path=str(path)), ()))
    assert count == 200_000
    assert process.memory_info().rss - before < 2e7  # all at once would be over 1e8
