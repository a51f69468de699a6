"""What is wrong in a nested field is said once, by its path and with its own model's fields."""

from typing import Any

import pytest

from paliflow.configs import FineTuneSpec
from paliflow.configs.base import SpecError

GOOD: dict[str, Any] = {"output": "/out", "run_id": "r", "train": [{"path": "/in.jsonl"}]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            # Pydantic says besides that there is no source: none is right.
            {"train": [{"path": "/in.jsonl", "weigth": 2}]},
            r"train\.0\.weigth: unknown field, did you mean weight\? It has empty, .*weight",
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
