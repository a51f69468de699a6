"""When a run is failing at large: how many inputs may fail before it stops."""

from collections import Counter
from collections.abc import Iterable, Mapping

from paliflow.configs.base import SpecError
from paliflow.configs.run import InputsSpec

_ENOUGH = 100
"""Inputs before a fraction means anything; a smaller run is judged when it ends."""
_SHOWN = 5


class ErrorLimitError(SpecError):
    """More inputs failed than the spec allows; what is done stays and can be resumed."""


class ErrorLimits:
    """Counts inputs and failures against a spec's limits."""

    def __init__(self, spec: InputsSpec) -> None:
        self._spec = spec
        self._inputs = self._failed = 0
        self._reasons: Counter[str] = Counter()

    def add(self, inputs: int, failed: int, reasons: Mapping[str, int] | Iterable[str]) -> None:
        """Counts; judges the fraction once there are enough to judge by.

        Raises:
            ErrorLimitError: with the most common reasons.
        """
        self._inputs += inputs
        self._failed += failed
        self._reasons.update(reasons)
        if failed:
            self.check(_ENOUGH)

    def check(self, enough: int = 0) -> None:
        """Judges what was counted; the fraction only of at least `enough` inputs.

        Raises:
            ErrorLimitError: with the most common reasons.
        """
        spec = self._spec
        if spec.max_errors is not None and self._failed > spec.max_errors:
            limit = f"max_errors={spec.max_errors}"
        elif self._inputs >= enough and self._failed > spec.max_error_fraction * self._inputs:
            limit = f"max_error_fraction={spec.max_error_fraction:g}"
        else:
            return
        common = "; ".join(f"{n} x {why}" for why, n in self._reasons.most_common(_SHOWN))
        raise ErrorLimitError(
            f"{limit}: {self._failed} of {self._inputs} inputs failed: {common}. Nothing is lost: "
            "raise the limit and run again with the same run_id to go on from here"
        )
