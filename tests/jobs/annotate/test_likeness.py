"""`paliflow plan --like`: a finished run's chip-seconds carried over to another."""

from typing import Any

import pytest

from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.annotate.forecast import Load
from paliflow.jobs.annotate.likeness import like
from paliflow.model import VARIANTS
from paliflow.tests.summaries import made_up

FIELDS = {"input": "in", "output": "out", "run_id": "r", "prompts": ["ocr"]}


def load(inputs: int, **fields: Any) -> Load:
    config = VARIANTS["paligemma-3b-224"]
    return Load(AnnotateSpec.parse(FIELDS | fields), "m", config, inputs, inputs, 16, 8, ())


def finished(**fields: Any) -> RunSummary:
    run: RunSummary = made_up(
        "out/run_id=before", spec=AnnotateSpec.parse(FIELDS).model_dump(mode="json"), **fields
    )
    return run


def test_a_run_takes_the_chip_seconds_an_input_of_the_run_it_is_like() -> None:
    run = finished(inputs=1000, chip_seconds={"TPU v5 lite": 36.0})
    (line,) = like(load(1_000_000, usd_per_chip_hour=2), run)
    assert "whose 1,000 inputs took 0.036 chip-seconds each: 10 chip-hours of TPU v5 lite" in line
    assert line.endswith("; 20 USD.")


def test_differences_that_matter_and_prices_that_are_missing_are_said() -> None:
    run = finished(inputs=10, chip_seconds={"cpu": 36.0})
    line, other = like(load(100, dtype="int8", prompts=["ocr", "caption en"]), run)
    assert "nothing says what they cost: give usd_per_chip_hour" in line
    assert other.startswith("That run differs in dtype, prompts, ")


def test_a_run_that_does_not_say_what_it_took_is_refused() -> None:
    with pytest.raises(SpecError, match="has no chip_seconds"):
        like(load(10), finished(inputs=10, chip_seconds={}))
