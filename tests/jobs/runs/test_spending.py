"""What a run costs: the price of a chip-hour, and the limit that stops the run."""

from typing import Any

import pytest

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.chips import catalogue
from paliflow.jobs.runs.spending import (
    Spending,
    SpendingLimitError,
    check_limit,
    cost,
    require_price,
)

V5E, CPU = "TPU v5 lite", "cpu"


def spec(**fields: Any) -> AnnotateSpec:
    return AnnotateSpec.parse(
        {"input": "in", "output": "out", "run_id": "r", "prompts": ["ocr"], **fields}
    )


def test_cost_is_by_the_list_price_or_what_the_spec_says() -> None:
    hours = {V5E: 2 * 3600.0}
    assert cost(hours, spec()) == pytest.approx(2 * catalogue().named("v5e").price)
    assert cost(hours, spec(usd_per_chip_hour=0.5)) == pytest.approx(1.0)
    assert cost({**hours, CPU: 3600.0}, spec(usd_per_chip_hour=0.5)) == pytest.approx(1.5)


def test_cost_is_unknown_where_a_price_is() -> None:
    assert cost({V5E: 1.0, CPU: 1.0}, spec()) is None
    assert cost({}, spec()) is None


def test_a_limit_needs_a_price() -> None:
    require_price(CPU, spec())
    require_price(CPU, spec(max_usd=1, usd_per_chip_hour=1))
    with pytest.raises(SpecError, match="max_usd=1: no price is known of 'cpu'; give usd_per_chip"):
        require_price(CPU, spec(max_usd=1))


def test_spending_more_than_the_limit_stops_the_run_and_says_how_to_go_on() -> None:
    spending = Spending(spec(max_usd=1, usd_per_chip_hour=1))
    spending.add(10, CPU, 3600.0)
    with pytest.raises(SpendingLimitError, match=r"^max_usd=1: 20 inputs have cost 1\.5 USD\. Not"):
        spending.add(10, CPU, 1800.0)
    Spending(spec()).add(10, CPU, 1e9)


def test_what_has_no_price_costs_nothing_and_the_rest_of_the_run_what_it_does() -> None:
    with pytest.raises(SpendingLimitError, match=r"have cost 1\.2 USD"):
        check_limit({CPU: 1e9, V5E: 3600.0}, "5 steps", spec(max_usd=1))
