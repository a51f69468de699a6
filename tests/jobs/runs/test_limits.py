"""Limits of failure: a run stops where too much fails, and says what fails most."""

from typing import Any

import pytest

from paliflow.configs import AnnotateSpec
from paliflow.jobs.runs.error_limits import ErrorLimitError, ErrorLimits


def limits(**fields: Any) -> ErrorLimits:
    return ErrorLimits(AnnotateSpec(input="i", output="o", prompts=("ocr",), run_id="r", **fields))


def test_a_fraction_counts_once_there_are_enough_inputs() -> None:
    counted = limits(max_error_fraction=0.1)
    counted.add(40, 30, ["not found"] * 30)
    counted.add(59, 0, [])
    with pytest.raises(ErrorLimitError, match=r"^max_error_fraction=0.1: 31 of 100 inputs failed"):
        counted.add(1, 1, ["empty file"])


def test_a_fraction_that_is_just_reached_is_allowed() -> None:
    counted = limits(max_error_fraction=0.1)
    counted.add(100, 10, ["not found"] * 10)
    counted.check()


def test_few_inputs_are_judged_in_the_end() -> None:
    counted = limits()
    counted.add(4, 1, ["not found"])
    with pytest.raises(ErrorLimitError, match="1 of 4"):
        counted.check()


def test_a_number_of_errors_counts_at_once() -> None:
    counted = limits(max_errors=2, max_error_fraction=1.0)
    counted.add(3, 2, ["not found"] * 2)
    with pytest.raises(ErrorLimitError, match=r"^max_errors=2: 3 of 4"):
        counted.add(1, 1, ["not found"])


def test_the_most_common_reasons_are_counted() -> None:
    counted = limits(max_errors=0)
    reasons = ["empty file"] + ["not found"] * 3 + [f"odd {n}" for n in range(9)]
    with pytest.raises(ErrorLimitError, match=r"3 x not found; 1 x .*same run_id"):
        counted.add(20, len(reasons), reasons)
