"""`Chip`: what a kind of accelerator can do and costs, as `chips.yaml` lists them."""

from collections.abc import Iterable, Mapping
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, PositiveFloat

from paliflow.configs.base import Spec, SpecError
from paliflow.configs.tpus import TpuType

Dtype = Literal["bfloat16", "int8", "float8_e4m3fn", "float32"]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class Peak(Spec):
    """Dense TFLOP/s of matrix products by the dtype of their operands; TOP/s for int8."""

    bfloat16: PositiveFloat
    int8: PositiveFloat
    float8_e4m3fn: PositiveFloat | None = None
    """None where the chip has no such products."""
    float32: PositiveFloat


class Efficiency(Spec):
    """What of the peaks a run reaches."""

    compute: Fraction
    bandwidth: Fraction
    measured: bool
    """Whether it was; else it is assumed."""


class Chip(Spec):
    """A kind of accelerator."""

    name: str
    kinds: tuple[str, ...] = Field(min_length=1)
    """How JAX's names of such a device begin."""
    hbm: PositiveFloat
    """GiB that a program can use."""
    peak: Peak
    bandwidth: PositiveFloat
    """GB/s of its memory."""
    price: PositiveFloat
    """USD for an hour."""
    efficiency: Efficiency

    def flops(self, dtype: Dtype) -> float:
        """Its peak of products of a dtype, operations a second.

        Raises:
            SpecError: it has no such products.
        """
        peak: float | None = getattr(self.peak, dtype)
        if peak is None:
            raise SpecError(f"dtype={dtype!r}: {self.name} has no such products; it has int8's")
        return peak * 1e12


class Catalogue(Spec):
    """`chips.yaml`."""

    prices: str
    """Which prices they are, and of when."""
    tpus: tuple[TpuType, ...]
    chips: tuple[Chip, ...]

    def only(self, names: Iterable[str], dtype: Dtype = "bfloat16") -> tuple[Chip, ...]:
        """The chips of these names, whose case does not matter; all with products of a dtype, if
        no name is given.

        Raises:
            SpecError: there is no such chip.
        """
        named = tuple(self.named(name) for name in names)
        return named or tuple(chip for chip in self.chips if getattr(chip.peak, dtype))

    def named(self, name: str) -> Chip:
        """As `only`, of one."""
        for chip in self.chips:
            if chip.name.casefold() == name.casefold():
                return chip
        known = ", ".join(chip.name for chip in self.chips)
        raise SpecError(f"no chip {name!r} is known; there are {known}")

    def tpu(self, name: str) -> TpuType:
        """The generation of TPUs of this name, ours or Ray's; case does not matter.

        Raises:
            SpecError: there is no such generation.
        """
        for each in self.tpus:
            if name.casefold() in (each.name.casefold(), each.ray.casefold()):
                return each
        known = ", ".join(each.name for each in self.tpus)
        raise SpecError(f"accelerator_type={name!r}: no such TPU is known; there are {known}")

    def of_device(self, kind: str) -> Chip | None:
        """The chip of a device that JAX names `kind`, e.g. `TPU v5 lite`; None if none is known."""
        fitting = [
            (len(start), chip)
            for chip in self.chips
            for start in chip.kinds
            if kind == start or kind.startswith((f"{start} ", f"{start}-"))
        ]
        return max(fitting, key=itemgetter(0))[1] if fitting else None

    def priced(self, prices: Mapping[str, float]) -> "Catalogue":
        """The same with other prices, by chip.

        Raises:
            SpecError: there is no such chip, or a price is not positive.
        """
        given = {self.named(name).name: price for name, price in prices.items()}
        chips = (
            Chip.parse(chip.model_dump() | {"price": given.get(chip.name, chip.price)})
            for chip in self.chips
        )
        return self.model_copy(update={"chips": tuple(chips)})

    def reaching(self, fractions: Mapping[str, float]) -> "Catalogue":
        """The same with another efficiency of all chips: `compute`, `bandwidth` or both.

        Raises:
            SpecError: there is no such efficiency, or it is not between 0 and 1.
        """
        chips = (
            chip.model_copy(
                update={
                    "efficiency": Efficiency.parse(chip.efficiency.model_dump() | dict(fractions))
                }
            )
            for chip in self.chips
        )
        return self.model_copy(update={"chips": tuple(chips)})


@cache
def catalogue() -> Catalogue:
    """The chips that Paliflow knows, with list prices."""
    text = Path(__file__).with_name("chips.yaml").read_text()
    return Catalogue.parse(yaml.safe_load(text))
