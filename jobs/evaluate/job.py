"""One evaluation from spec to manifest: plan, ask, score, sum up."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paliflow import storage
from paliflow.configs import EvaluateSpec, EvaluateSummary, RunSummary
from paliflow.configs.base import SpecError, printable
from paliflow.configs.benchmark import benchmark
from paliflow.configs.log_lines import say
from paliflow.configs.summary import StageSeconds, cut_said
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.evaluate.asking import (
    asking_run,
    questions,
    right_answers,
    scoring_run,
    write_questions,
)
from paliflow.jobs.evaluate.joining import Asked, rows_of_sets
from paliflow.jobs.evaluate.predictions import write_predictions
from paliflow.jobs.evaluate.scoring import metrics_of
from paliflow.jobs.evaluate.toxicity_page import write_toxicity_page
from paliflow.jobs.evaluate.toxicity_table import show_toxicity
from paliflow.jobs.examples.plan import ExamplePlan, open_examples, write_examples
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.lifecycle import run_once
from paliflow.jobs.runs.outputs import row_files
from paliflow.jobs.runs.spending import cost
from paliflow.metrics import METRICS, Metric

_PACKAGES = "paliflow", "ray", "jax", "flax", "pyarrow"


def evaluate(
    spec: EvaluateSpec, console: Console, ray_address: str | None = None
) -> EvaluateSummary:
    """Does what an evaluation lacks and writes its manifest.

    The examples are written to the run's folder first, so that a resumed run asks the same. They
    are asked by an annotation run of its own in `_answers/`, which is resumed like any other; where
    a metric wants to know how likely what is right is, another in `_likelihoods/` says it.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress and the figures go.
        ray_address: as in `connected`.

    Raises:
        SpecError: as in `annotate`; or there are no examples, they have several images, nothing
            says how to score a set, or the weights have changed since they answered.
        ClusterError: as in `annotate`.
        RuntimeError: as in `annotate`.
    """

    def work(spec: EvaluateSpec) -> Asked:
        _check_regions(spec)
        run = spec.location
        plan = write_examples(run, spec.sets, spec)
        check_same_spec(plan.spec, spec)
        for line in plan.dropped():
            say(printable(line), "warning")
        metrics = set_metrics(spec, plan)
        uri, digest = write_questions(run, plan)
        asking = asking_run(spec, uri)
        answers = annotate(asking, console, ray_address, partial(questions, run, plan))
        scored = _sets(spec, plan, metrics, lambda metric: metric.by_likelihood)
        right = partial(right_answers, run, plan, scored)
        likelihoods = None
        if any(right()):
            likelihoods = annotate(scoring_run(asking, answers), console, ray_address, right)
            if likelihoods.checkpoint_sha256 != answers.checkpoint_sha256:
                raise SpecError(
                    f"{answers.checkpoint} has changed since the questions were answered: start "
                    "another evaluation with a new run_id"
                )
        ranked = _sets(spec, plan, metrics, lambda metric: metric.by_score)
        return Asked(plan, metrics, digest, answers, ranked, scored, likelihoods)

    summary = run_once(spec, EvaluateSummary, work, _figures, _PACKAGES)
    show(summary, console)
    return summary


def _figures(spec: EvaluateSpec, asked: Asked) -> Mapping[str, Any]:
    answers, misfits = asked.answers, Counter[str]()
    rows_of = rows_of_sets(spec, asked, misfits)
    figures, sets = write_predictions(spec, asked.metrics, asked.plan.sources, rows_of)
    return {
        "checkpoint": answers.checkpoint,
        "checkpoint_sha256": answers.checkpoint_sha256,
        "examples": answers.rows,
        "errors": answers.errors + misfits.total(),
        "error_reasons": dict((misfits + Counter(answers.error_reasons)).most_common()),
        "cut": answers.cut,
        "examples_sha256": asked.digest,
        "figures": figures,
        "sets": sets,
        "image_size": _image_size(answers),
        **_costs(spec, [answers, asked.likelihoods] if asked.likelihoods else [answers]),
    }


def _costs(spec: EvaluateSpec, runs: Sequence[RunSummary]) -> dict[str, Any]:
    """What the annotation runs took together."""
    seconds = Counter[str]()
    for run in runs:
        seconds.update(run.chip_seconds)
    return {
        "stages": sum((run.stages for run in runs), StageSeconds()),
        "chip_seconds": dict(seconds),
        "usd": cost(seconds, spec),
        "preemptions": sum(run.preemptions for run in runs),
    }


def _image_size(answers: RunSummary) -> int | None:
    """What its actors say that the model sees."""
    with storage.open_binary(next(iter(row_files(answers)))) as file:
        said = (pq.read_schema(file).metadata or {}).get(b"paliflow.image_size")
    return int(said) if said else None


def _check_regions(spec: EvaluateSpec) -> None:
    """
    Raises:
        SpecError: a set cannot be scored by masks or by regions.
    """
    for name, chosen in spec.sets.items():
        known = benchmark(chosen.benchmark).metrics if chosen.benchmark else ()
        if "region_mask_iou" in known and not spec.mask_decoder:
            raise SpecError(
                f"sets.{name}: {chosen.benchmark} compares masks: give mask_decoder, the weights "
                "in vae-oid.npz"
            )
        wanted = [each for each in chosen.metrics or () if METRICS[each].of_region]
        if regions := set(wanted).difference(known):
            raise SpecError(
                f"sets.{name}.metrics: {', '.join(sorted(regions))}: only benchmarks such as "
                "refcoco say which region is right"
            )


def set_metrics(spec: EvaluateSpec, plan: ExamplePlan) -> dict[str, tuple[str, ...]]:
    """How each set is scored.

    Raises:
        SpecError: nothing says it, a metric does not fit its set, or an example has several
            images.
    """
    metrics = {}
    for name, chosen in spec.sets.items():
        if chosen.benchmark:
            continue
        prefixes = set()
        for example in open_examples(spec.location, plan, name):
            prefixes.add(example.prefix)
            if len(example.images) > 1:
                raise SpecError(
                    f"sets.{name}: example {example.id!r} has {len(example.images)} images; an "
                    "evaluation asks about one image at a time as yet: leave such examples out"
                )
        metrics[name] = metrics_of(name, chosen.metrics, prefixes)
    return metrics


def _sets(
    spec: EvaluateSpec,
    plan: ExamplePlan,
    metrics: Mapping[str, Sequence[str]],
    needs: Callable[[Metric], bool],
) -> tuple[str, ...]:
    """The sets that are scored by such a metric, in the order of the plan."""
    found = []
    for name in (source.name for source in plan.sources):
        chosen = spec.sets[name]
        own = benchmark(chosen.benchmark).metrics if chosen.benchmark else metrics.get(name, ())
        if any(needs(METRICS[each]) for each in own):
            found.append(name)
    return tuple(found)


def show(summary: EvaluateSummary, console: Console) -> None:
    """Prints the figures, with their intervals, and a line that sums the evaluation up; leaves the
    page of their toxicity, if it was scored."""
    table = Table("figure", box=None, header_style="bold", pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for figure, value in summary.figures.items():
        name, _, metric = figure.partition("/")
        bounds = summary.sets[name].intervals.get(metric) if name in summary.sets else None
        interval = f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""
        table.add_row(Text(printable(figure)), f"{value:.4f}", interval)
    console.print(table)
    for name, own in summary.sets.items():
        if own.toxicity:
            show_toxicity(name, own.toxicity, console)
        if own.note:
            print(f"{printable(name)}: {own.note}", flush=True)
    if page := write_toxicity_page(summary):
        print(f"toxicity by group: {printable(page)}", flush=True)
    print(
        f"{summary.examples} examples, {summary.errors} of them errors{cut_said(summary.cut)}, "
        f"answered by {printable(summary.checkpoint)}: {printable(summary.location)}",
        flush=True,
    )
