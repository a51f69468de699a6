"""What is wrong in a nested field is said once, by its path and with its own model's fields."""

import re
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs import FineTuneSpec
from paliflow.configs.base import SpecError, printable, redacted

GOOD: dict[str, Any] = {"output": "/out", "run_id": "r", "train": [{"path": "/in.jsonl"}]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            # Pydantic says besides that there is no source: none is right.
            {"train": [{"path": "/in.jsonl", "weigth": 2}]},
            r"train\.0\.weigth: unknown field, did you mean weight\? It has benchmark, .*weight",
        ),
        ({"train": [{}]}, r"train\.0\.path: required and missing"),
        (
            {"validation": {"train": {"path": "/in.jsonl", "max_example": 1}}},
            r"validation\.train\.max_example: unknown field, did you mean max_examples\? .*",
        ),
        ({"lora": {"r": 4}}, r"lora\.r: unknown field; It has matrices, rank"),
    ],
)
def test_an_error_inside_a_field(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^FineTuneSpec: {message}$"):
        FineTuneSpec.parse(GOOD | wrong)


@given(st.text())
def test_printable_text_is_one_line_that_commands_no_terminal(text: str) -> None:
    said = printable(text)
    assert len(said.splitlines()) <= 1
    assert not {unicodedata.category(char) for char in said} & {"Cc", "Cs", "Zl", "Zp"}
    assert not any(unicodedata.bidirectional(char) in _TURNS for char in said)
    assert printable(said) == said
    said.encode()


_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_printable_text_keeps_every_script_and_escapes_the_rest() -> None:
    scripts = "caf\u00e9 \u65e5\u672c\u8a9e\u3000\u0639\u0631\u0628\u064a \U0001f600"
    for text in (scripts, "[red]a[/red] \\n"):
        assert printable(text) == text
    assert printable("a\nb\x1b[2J\u202e\udce9") == r"a\nb\x1b[2J\u202e\udce9"


def test_an_error_takes_little_room_whatever_the_value() -> None:
    with pytest.raises(SpecError, match=r"output=.*characters") as refused:
        FineTuneSpec.parse(GOOD | {"output": ["x" * 10**6]})
    assert len(str(refused.value)) < 1000
    started = time.monotonic()
    with pytest.raises(SpecError, match=r"\(2000\d errors\)") as refused:
        FineTuneSpec.parse(GOOD | {"train": [{"path": None}] * 20_000})
    assert len(str(refused.value)) < 5000
    assert time.monotonic() - started < 5  # each compared with each would take minutes


@pytest.mark.parametrize("text", ["x://" * 100_000, "x://?" * 100_000, "?" * 10**6, "a" * 10**6])
def test_redacting_takes_no_longer_than_the_text_is_long(text: str) -> None:
    started = time.monotonic()
    redacted(text)
    assert time.monotonic() - started < 5  # the square would take a minute


_PIECES = ["s3://", "gs://", "https://", "?", "a", " ", "'", '"', "@", "/", "gs:", "\n", "#"]


@given(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join))
def test_redacting_takes_out_users_and_queries(text: str) -> None:
    plain = re.sub(r"(\w://)[^\s/?#]*@", r"\1", text)
    assert redacted(text) == re.sub(r"\b(?!gs:)(\w+://[^?]*)\?[^\s'\"]*", r"\1", plain)
