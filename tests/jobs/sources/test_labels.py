"""Choices from a file: read once, and then the spec's own."""

from pathlib import Path
from typing import Any

import pytest

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.sources.labels import with_labels


def spec_of(*prompts: Any) -> AnnotateSpec:
    given = {"input": "x", "output": "o", "run_id": "r", "prompts": prompts}
    return AnnotateSpec.parse(given)


def test_lines_of_a_file_become_the_specs_choices(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufefftop shelf\r\n\n  middle \nnone".encode())
    spec = with_labels(spec_of("ocr", {"ask": "which?", "choices_file": str(file), "name": "n"}))
    wanted = {"ask": "which?", "choices": ["top shelf", "middle", "none"], "name": "n"}
    assert spec == spec_of("ocr", wanted)
    assert with_labels(spec) is spec


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "not UTF-8"),
        (b"one\n", "it has 1 choices"),
        (b"one\ntwo\none", "the choice 'one' is there twice"),
    ],
)
def test_a_file_without_choices_is_named_with_what_is_wrong(
    content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "labels.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SpecError, match=f"choices_file='{file}': .*{complaint}"):
        with_labels(spec_of({"ask": "which?", "choices_file": str(file)}))
