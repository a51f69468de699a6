"""Rows: the task that a prompt names, and errors that take little room."""

import pytest

from paliflow.configs.prompts import task_of
from paliflow.jobs.annotate.rows import answer_row, error_row
from paliflow.jobs.media.pixels import FramePosition
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("caption en", "caption"),
        ("cap en", "caption"),
        ("describe de", "caption"),
        ("answer en what is this?", "answer"),
        ("question en a cat", "question"),
        ("ocr", "ocr"),
        ("detect cat ; dog", "detect"),
        ("segment left cat", "segment"),
        ("detection of cats", "custom"),
        ("what is this?", "custom"),
        (" ", "custom"),
    ],
)
def test_the_first_word_of_a_prompt_names_its_task(prompt: str, task: str) -> None:
    assert task_of(prompt) == task


def test_an_error_is_short_whatever_it_quotes() -> None:
    source = Input(Item("a.jpg"))
    assert error_row(source, "ocr", "not found")["error"] == "not found"
    error = error_row(source, "ocr", "prompt: " + "x" * 10**6)["error"]
    assert error == "prompt: " + "x" * 492 + "... (1000008 characters)"


def test_a_note_on_a_frame_is_in_its_rows() -> None:
    for note, said in ((None, None), ("mended", "mended"), ("x" * 10**6, "x" * 500)):
        source = Input(Item("a.mpg"), moment=FramePosition(3, 0.12, note=note))
        row = answer_row(source, "ocr", "7", None, logprob=-1.0, token_count=2, finished=True)
        assert row["status"] == "ok"
        assert (row["note"] or "").startswith(said or "")
        assert len(row["note"] or "") < 600
