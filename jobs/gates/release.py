"""Releasing a run that its gate held back, with the reason on record."""

from datetime import UTC, datetime

from paliflow.configs import RunSummary
from paliflow.configs.base import SpecError
from paliflow.configs.summary import Release
from paliflow.jobs.runs.outputs import find_run, write_manifest
from paliflow.jobs.runs.restarting import generation_of


def release(output: str, why: str, run_id: str | None = None) -> RunSummary:
    """Lets a quarantined run through: from now on it counts as any other.

    Args:
        output: the folder of the run, or of runs.
        why: goes to the run's manifest.
        run_id: which; needed if `output` has many.

    Raises:
        SpecError: there is no such run, or it was not held back, or nothing says why.
    """
    if not why.strip():
        raise SpecError("--why is empty; say for the record why the run is released")
    summary = find_run(output, run_id)
    if not summary.quarantined:
        raise SpecError(f"{summary.location} is not quarantined; nothing to release")
    let_through = Release(
        when=datetime.now(UTC), why=why.strip(), generation=generation_of(summary.location)
    )
    summary = summary.model_copy(update={"quarantined": False, "released": let_through})
    write_manifest(summary, again=True)
    return summary
