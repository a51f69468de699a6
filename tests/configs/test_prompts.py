"""Prompts keep their task: what surrounds it is taken off, another case is refused."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs import AnnotateSpec, EvaluateSpec, FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.configs.prompts import misspelt_task, say_stripped, stripped, task_of

GOOD: dict[str, Any] = {"input": "in", "output": "out", "run_id": "r"}


@pytest.mark.parametrize(
    "prompt",
    ["<image>detect digit", "detect digit\n", " detect digit", "<bos>\n<image> detect digit\t"],
)
def test_what_surrounds_a_prompt_is_taken_off_and_said_once(
    prompt: str, caplog: pytest.LogCaptureFixture
) -> None:
    say_stripped.cache_clear()
    with caplog.at_level(logging.WARNING):
        specs = [AnnotateSpec.parse(GOOD | {"prompts": [prompt]}) for _ in range(2)]
    assert [spec.prompts for spec in specs] == [("detect digit",)] * 2
    (said,) = caplog.messages
    assert said.startswith(repr(prompt))


@pytest.mark.parametrize(
    "prompt", ["Detect digit", "OCR", "<image>Caption en", "SEGMENT cat\n", "Answer EN why?"]
)
def test_a_task_in_another_case_is_refused_with_the_right_spelling(prompt: str) -> None:
    right = stripped(prompt).split()[0].lower()
    with pytest.raises(SpecError, match=rf"prompts\.0=.*is spelt '{right}'"):
        AnnotateSpec.parse(GOOD | {"prompts": [prompt]})
    source = {"path": "/in.jsonl", "prefix": prompt}
    with pytest.raises(SpecError, match=rf"prefix=.*is spelt '{right}'"):
        FineTuneSpec.parse({"output": "/out", "run_id": "r", "train": [source]})


@pytest.mark.parametrize(
    "prompt",
    [
        *("Detect any damage?", "Caption this photo", "Describe the scene.", "Question the label"),
        *("Segment the road!", "Answer: what is it?", "Answering en what?"),
    ],
)
def test_ordinary_language_that_begins_like_a_task_is_asked_as_it_is(prompt: str) -> None:
    assert AnnotateSpec.parse(GOOD | {"prompts": [prompt]}).prompts == (prompt,)
    assert task_of(prompt) == "custom"


def test_a_prompt_that_is_nothing_but_its_frame_is_refused() -> None:
    with pytest.raises(SpecError, match=r"prompts\.0=' <image>': .*asks nothing"):
        AnnotateSpec.parse(GOOD | {"prompts": [" <image>"]})


def test_the_same_prompt_in_two_frames_is_the_same_prompt() -> None:
    with pytest.raises(SpecError, match="the same prompt twice"):
        AnnotateSpec.parse(GOOD | {"prompts": ["ocr", "ocr\n"]})


def test_closed_answers_with_beams_are_refused_when_the_spec_is_parsed() -> None:
    closed = {"ask": "detect cat", "closed": True}
    said = r"beams=3: 'detect cat' is closed, whose answers are decoded greedily"
    with pytest.raises(SpecError, match=said):
        AnnotateSpec.parse(GOOD | {"prompts": [closed], "sampling": {"beams": 3}})
    evaluation = {"output": "/out", "run_id": "r", "sets": {"a": {"path": "/in.jsonl"}}}
    with pytest.raises(SpecError, match=said):
        EvaluateSpec.parse(evaluation | {"prompts": [closed], "beams": 3})
    EvaluateSpec.parse(evaluation | {"prompts": [closed]})


@given(st.text(alphabet="<imagebos> \n\tdDetc{}"))
def test_stripping_is_done_when_it_is_done_once_and_keeps_what_is_inside(prompt: str) -> None:
    bare = stripped(prompt)
    assert stripped(bare) == bare == bare.strip()
    assert bare in prompt
    if task_of(bare) != "custom":
        assert misspelt_task(bare) is None
