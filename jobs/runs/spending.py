"""What a run costs: chip-seconds by kind of device, their price, and a limit that stops it."""

from collections.abc import Mapping

from paliflow.configs.base import SpecError
from paliflow.configs.chips import catalogue
from paliflow.configs.run import ModelSpec

_HOUR_S = 3600.0


class SpendingLimitError(SpecError):
    """A run has cost more than the spec allows; what is done stays and can be resumed."""


def price_of(device: str, spec: ModelSpec) -> float | None:
    """USD for an hour of a chip; None if nothing says it.

    Args:
        device: JAX's name of its kind, e.g. `TPU v5 lite`.
        spec: whose `usd_per_chip_hour` wins over the list price.
    """
    if spec.usd_per_chip_hour is not None:
        return spec.usd_per_chip_hour
    chip = catalogue().of_device(device)
    return chip.price if chip else None


def require_price(device: str, spec: ModelSpec) -> None:
    """
    Raises:
        SpecError: the spec limits what the run may cost, and nothing says what this device does.
    """
    if spec.max_usd is not None and price_of(device, spec) is None:
        raise SpecError(
            f"max_usd={spec.max_usd:g}: no price is known of {device!r}; give usd_per_chip_hour"
        )


def cost(chip_seconds: Mapping[str, float], spec: ModelSpec) -> float | None:
    """USD of chip-seconds by kind of device; None if a price is not known."""
    prices = {device: price_of(device, spec) for device in chip_seconds}
    known = {device: price for device, price in prices.items() if price is not None}
    if not chip_seconds or len(known) < len(prices):
        return None
    return sum(chip_seconds[device] / _HOUR_S * price for device, price in known.items())


def check_limit(chip_seconds: Mapping[str, float], done: str, spec: ModelSpec) -> None:
    """
    Args:
        chip_seconds: by kind of device; what has no price costs nothing.
        done: with them, e.g. `20 inputs`.
        spec: of the run.

    Raises:
        SpendingLimitError: that has cost more than the spec allows.
    """
    prices = {device: price_of(device, spec) or 0.0 for device in chip_seconds}
    usd = sum(chip_seconds[device] / _HOUR_S * price for device, price in prices.items())
    if spec.max_usd is not None and usd > spec.max_usd:
        raise SpendingLimitError(
            f"max_usd={spec.max_usd:g}: {done} have cost {usd:.4g} USD. Nothing is lost: raise the "
            "limit and run again with the same run_id to go on from here"
        )


class Spending:
    """Adds up what a run's shards have cost, against the spec's limit."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._chip_seconds, self._inputs = dict[str, float](), 0

    @property
    def limited(self) -> bool:
        """Whether the run may cost no more than so much."""
        return self._spec.max_usd is not None

    def add(self, inputs: int, device: str, chip_seconds: float) -> None:
        """Adds a shard.

        Args:
            inputs: of the shard.
            device: JAX's name of the chips that did it; what has no price costs nothing.
            chip_seconds: how long they were held for it.

        Raises:
            SpendingLimitError: now the run has cost more than it may.
        """
        self._inputs += inputs
        self._chip_seconds[device] = self._chip_seconds.get(device, 0.0) + chip_seconds
        check_limit(self._chip_seconds, f"{self._inputs} inputs", self._spec)
