"""What a run's parts say that they hold, added up and compared with its plan."""

from collections import Counter
from typing import NamedTuple

from paliflow.configs.run import InputsSpec
from paliflow.jobs.runs.error_limits import ErrorLimits
from paliflow.jobs.runs.parts import REASONS, read_parts
from paliflow.jobs.runs.plan import Plan


class Totals(NamedTuple):
    """What all parts of a run hold."""

    rows: int
    errors: int
    """Rows with status `error`."""
    cut: int
    """Rows whose answer ended at `max_new_tokens`."""
    error_reasons: dict[str, int]
    """The most common errors and how many rows have them."""
    checkpoints: frozenset[str]
    """The digests of the weights that answered; one, unless the file was changed meanwhile."""
    flagged: Counter[str]
    """As `Part.flagged`."""
    tokens: int
    """Tokens generated."""
    chip_seconds: dict[str, float]
    """How long chips were held, by JAX's name of the device."""
    accepted: int = 0
    """As `Part.accepted`."""
    not_accepted: int = 0
    empty: int = 0
    """Rows whose answer has no text."""


def add_up(run: str, plan: Plan, spec: InputsSpec) -> Totals:
    """Adds up what the footers of a run's parts say.

    Args:
        run: the run's folder.
        plan: the run's plan, all of whose parts are there.
        spec: how many inputs may fail.

    Raises:
        ErrorLimitError: too many inputs have failed.
        RuntimeError: the parts do not hold what the plan lists.
    """
    inputs = rows = errors = cut = tokens = accepted = not_accepted = empty = 0
    chip_seconds: dict[str, float] = {}
    reasons: Counter[str] = Counter()
    flagged: Counter[str] = Counter()
    checkpoints = set()
    limits = ErrorLimits(spec)
    for part in read_parts(run, range(plan.shards)):
        inputs += part.inputs
        rows += part.rows
        errors += part.errors
        cut += part.cut
        tokens += part.tokens
        accepted += part.accepted
        not_accepted += part.not_accepted
        empty += part.empty
        if part.device:
            chip_seconds[part.device] = chip_seconds.get(part.device, 0.0) + part.chip_seconds
        reasons.update(part.reasons)
        flagged.update(part.flagged)
        checkpoints.add(part.checkpoint_sha256)
        limits.add(part.inputs, part.failed, part.reasons)
    if inputs != plan.inputs or plan.rows not in (None, rows):
        raise RuntimeError(
            f"the parts of {run} have {rows} rows of {inputs} inputs; its plan makes {plan.rows} "
            f"of {plan.inputs}"
        )
    limits.check()
    common = dict(reasons.most_common(REASONS))
    return Totals(
        *(rows, errors, cut, common, frozenset(checkpoints), flagged, tokens, chip_seconds),
        *(accepted, not_accepted, empty),
    )
