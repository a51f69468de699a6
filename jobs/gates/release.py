"""Releasing a run that its gate held back, with the reason on record."""

from datetime import UTC, datetime

from paliflow.configs import RunSummary
from paliflow.configs.base import SpecError
from paliflow.configs.summary import Release
from paliflow.jobs.gates.history import write_checks
from paliflow.jobs.runs.outputs import find_run, write_manifest
from paliflow.jobs.runs.restarting import generation_of


def let_through(output: str, why: str, run_id: str | None = None) -> RunSummary:
    """Lets a quarantined run through: from now on it counts as any other.

    Safe to repeat with the same reason.

    Args:
        output: the folder of the run, or of runs.
        why: goes to the run's manifest.
        run_id: which; needed if `output` has many.

    Raises:
        SpecError: there is no such run, or it was not held back.
    """
    summary = find_run(output, run_id)
    if summary.quarantined:
        released = Release(
            when=datetime.now(UTC), why=why, generation=generation_of(summary.location)
        )
        summary = summary.model_copy(update={"quarantined": False, "released": released})
        write_manifest(summary, again=True)
    elif not summary.released or summary.released.why != why:
        raise SpecError(f"{summary.location} is not quarantined; nothing to release")
    write_checks(summary)
    return summary
