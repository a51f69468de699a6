"""Scores the kept answers of an evaluation again, by the rules of today, without a model."""

from rich.console import Console

from paliflow.configs import EvaluateSpec, EvaluateSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.evaluate.job import set_metrics, show
from paliflow.jobs.evaluate.predictions import read_predictions, write_predictions
from paliflow.jobs.evaluate.results import read_evaluation
from paliflow.jobs.examples.plan import read_plan
from paliflow.jobs.runs.outputs import write_manifest


def rescore(location: str, console: Console) -> EvaluateSummary:
    """Rewrites predictions, figures and manifest of a finished evaluation from its answers.

    Args:
        location: the evaluation's folder.
        console: where the figures go.

    Raises:
        SpecError: there is no finished evaluation, or its plan is gone.
    """
    location, summary = read_evaluation(location)
    plan = read_plan(location)
    if plan is None:
        raise SpecError(f"{location} lacks its plan, which names the sets and their rows")
    output, _, run_id = location.rpartition("/run_id=")
    spec = EvaluateSpec.parse({**summary.spec, "output": output, "run_id": run_id})

    figures, sets = write_predictions(
        spec,
        set_metrics(spec, plan),
        plan.sources,
        lambda name: read_predictions(location, name),
    )
    summary = summary.model_copy(update={"figures": figures, "sets": sets})
    write_manifest(summary, again=True)
    show(summary, console)
    return summary
