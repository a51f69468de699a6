"""Rows: the task that a prompt names."""

import pytest

from paliflow.configs.prompts import task_of


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
