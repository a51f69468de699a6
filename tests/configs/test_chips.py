"""The table of chips, and what a user says of them instead."""

from typing import Any

import pytest

from paliflow.configs.base import SpecError
from paliflow.configs.chips import Chip, catalogue


def test_chips_are_found_by_name_whatever_its_case() -> None:
    known = catalogue()
    assert [chip.name for chip in known.only(["h100", "V5E"])] == ["H100", "v5e"]
    assert known.only([]) == known.chips
    assert {"v5e", "v5p", "v6e", "H100", "H200", "L4"} <= {chip.name for chip in known.chips}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
        ("cpu", None),
    ],
)
def test_chip_of_a_device_is_found_by_the_beginning_of_its_kind(
    kind: str, name: str | None
) -> None:
    chip = catalogue().of_device(kind)
    assert (chip and chip.name) == name


def test_an_unknown_chip_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"no chip 'v9' is known; there are v5e, v5p, v6e, H100"):
        catalogue().only(["v5e", "v9"])
    with pytest.raises(SpecError, match="no chip 'v9'"):
        catalogue().priced({"v9": 1.0})


def test_another_price_changes_no_other_chip_and_nothing_else() -> None:
    before, after = catalogue(), catalogue().priced({"V5e": 0.6})
    assert after.named("v5e") == before.named("v5e").model_copy(update={"price": 0.6})
    assert after.chips[1:] == before.chips[1:]
    assert catalogue() == before


def test_another_efficiency_is_that_of_all_chips() -> None:
    after = catalogue().reaching({"compute": 0.25})
    assert {chip.efficiency.compute for chip in after.chips} == {0.25}
    for old, new in zip(catalogue().chips, after.chips, strict=True):
        assert old.efficiency.bandwidth == new.efficiency.bandwidth
        assert old.peak == new.peak


@pytest.mark.parametrize(
    ("prices", "fractions", "message"),
    [
        ({"v5e": 0.0}, {}, "price=0.0: Input should be greater than 0"),
        ({}, {"compute": 1.5}, "compute=1.5: Input should be less than or equal to 1"),
        ({}, {"bandwidth": 0.0}, "bandwidth=0.0: Input should be greater than 0"),
        ({}, {"speed": 0.5}, "speed: unknown field; It has bandwidth, compute"),
    ],
)
def test_what_cannot_be_is_refused(
    prices: dict[str, float], fractions: dict[str, float], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        catalogue().priced(prices).reaching(fractions)


@pytest.mark.parametrize(
    "change", [{"hbm": 0}, {"peak": {"bfloat16": 1}}, {"colour": "green"}, {"bandwidth": "much"}]
)
def test_an_entry_of_the_table_is_checked(change: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Chip.parse(catalogue().chips[0].model_dump() | change)


def test_a_chip_without_products_of_a_dtype_says_so_and_is_left_out_of_a_table_of_them() -> None:
    names = {chip.name for chip in catalogue().only([], "float8_e4m3fn")}
    assert names == {"H100", "H200", "L4"}
    assert catalogue().named("H200").flops("float8_e4m3fn") == 1979e12
    with pytest.raises(SpecError, match=r"dtype='float8_e4m3fn': v5e has no such products; it has"):
        catalogue().named("v5e").flops("float8_e4m3fn")
