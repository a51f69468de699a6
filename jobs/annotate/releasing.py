"""The job that releases a quarantined run, and shows that in its report."""

from rich.console import Console

from paliflow.configs import AnnotateSpec, ReleaseSpec, RunSummary
from paliflow.jobs.annotate.job import finish, show_run
from paliflow.jobs.gates.release import let_through


def release(spec: ReleaseSpec, console: Console, ray_address: str | None = None) -> RunSummary:
    """Lets a quarantined run through; safe to repeat with the same reason.

    Args:
        spec: which run, and why.
        console: of no use; nothing is shown.
        ray_address: of no use; nothing here needs Ray.

    Raises:
        SpecError: there is no such run, or it was not held back.
    """
    summary = let_through(spec.output, spec.why, spec.run_id)
    annotated = AnnotateSpec.parse(summary.spec)
    if annotated.report:
        show_run(summary, annotated)
    return finish(summary, annotated)
