"""One fine-tuning run from spec to manifest: settle, plan, train, export, sum up."""

import io
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from rich.console import Console

from paliflow import storage
from paliflow.configs.base import SpecError, printable
from paliflow.configs.finetune import FineTuneSpec
from paliflow.configs.log_lines import say
from paliflow.configs.summary import FineTuneSummary
from paliflow.jobs.evaluate.scoring import metrics_of
from paliflow.jobs.examples.plan import (
    ExamplePlan,
    open_examples,
    read_plan,
    sources_of,
    write_examples,
)
from paliflow.jobs.finetune.card import model_card
from paliflow.jobs.finetune.export import model_folder, model_uri
from paliflow.jobs.finetune.log import read_log
from paliflow.jobs.finetune.near import find_near
from paliflow.jobs.finetune.progress import TrainingProgress
from paliflow.jobs.finetune.start import begin, steps_of
from paliflow.jobs.finetune.worker import Job, Outcome
from paliflow.jobs.finetune.worker_group import train
from paliflow.jobs.fleet.cluster import connected
from paliflow.jobs.registry.cards import CARD
from paliflow.jobs.registry.checkpoints import digest_of
from paliflow.jobs.registry.locations import Resolved
from paliflow.jobs.runs.lifecycle import run_once
from paliflow.jobs.runs.spending import cost
from paliflow.metrics import METRICS
from paliflow.model import local_copy

_PACKAGES = "paliflow", "ray", "jax", "flax", "optax", "orbax-checkpoint", "grain", "pyarrow"


def finetune(
    spec: FineTuneSpec, console: Console, ray_address: str | None = None
) -> FineTuneSummary:
    """Does what a run lacks and writes its manifest.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress goes.
        ray_address: as in `connected`.

    Raises:
        SpecError: the user must change something: the examples, the checkpoint, a pattern, a run
            id that another spec has taken, the learning rate where the loss became NaN or infinite.
        ClusterError: the cluster is not there.
        RuntimeError: workers keep dying.
    """

    def work(spec: FineTuneSpec) -> tuple[Job, Outcome]:
        run = spec.location
        start = begin(spec)
        plan = read_plan(run)
        if plan is None:
            leave_out = None
            if spec.exclude_near:
                with connected(ray_address):
                    leave_out = find_near(spec, console).leave_out
            plan = write_examples(run, sources_of(spec), spec, leave_out)
        _check_metrics(spec, plan)
        training = (each.examples for each in plan.sources if each.name.startswith("train/"))
        examples = sum(training)
        job = Job(spec, start, plan, steps_of(spec, examples))
        say(
            f"{examples} examples, {job.steps.total} steps of {spec.batch_size}, from "
            f"{printable(start.checkpoint)}, to {printable(run)}"
        )
        for line in plan.dropped():
            say(printable(line), "warning")
        with connected(ray_address), TrainingProgress(run, job.steps.total, console):
            outcome = train(job)
        if said := outcome.stages.host_bound("cpus_per_worker"):
            print(said, flush=True)
        return job, outcome

    return run_once(spec, FineTuneSummary, work, _figures, _PACKAGES)


def _check_metrics(spec: FineTuneSpec, plan: ExamplePlan) -> None:
    """
    Raises:
        SpecError: a validation set needs `metrics`, or has one that needs more than texts, or
            `best` names none of them.
    """
    figures = set()
    for name, chosen in spec.validation.items():
        prefixes = {e.prefix for e in open_examples(spec.location, plan, name)}
        metrics = metrics_of(name, chosen.metrics, prefixes)
        if more := [each for each in metrics if not METRICS[each].of_texts]:
            raise SpecError(
                f"validation.{name}.metrics: {', '.join(more)}: needs more than answers and what "
                "is right"
            )
        figures |= {f"{name}/{figure}" for figure in ("loss", *metrics)}
    if spec.best and spec.best not in figures:
        raise SpecError(f"best={spec.best!r}: there are {', '.join(sorted(figures))}")


def _figures(spec: FineTuneSpec, done: tuple[Job, Outcome]) -> Mapping[str, Any]:
    """Writes what the model lacks beside its weights, and sums the run up."""
    job, outcome = done
    start, steps = job.start, job.steps
    run = spec.location
    lines = read_log(run)
    losses = [line["loss"] for line in lines if "loss" in line][-max(1, steps.total // 20) :]
    looks = {line.pop("step"): line for line in lines if "loss" not in line}
    figures = looks.get(outcome.best_step, {})
    versions = {name: version(name) for name in _PACKAGES}
    with local_copy(start.tokenizer) as path, path.open("rb") as file:
        storage.overwrite(f"{model_folder(run)}/tokenizer.model", file)
    card = model_card(job, outcome, looks.get(0, {}), figures, versions)
    storage.overwrite(f"{model_folder(run)}/{CARD}", io.BytesIO(card.encode()))
    digest = digest_of(Resolved(model_uri(spec), None), f"{model_folder(run)}/tokenizer.model")
    return {
        "checkpoint": start.checkpoint,
        "checkpoint_sha256": start.checkpoint_sha256,
        "model": model_uri(spec),
        "model_sha256": digest,
        "steps": steps.total,
        "best_step": outcome.best_step,
        "examples": steps.total * spec.batch_size,
        "errors": outcome.errors,
        "error_reasons": outcome.reasons,
        "loss": sum(losses) / max(1, len(losses)),
        "figures": figures,
        "examples_per_second": outcome.examples_per_second,
        "stages": outcome.stages,
        "chip_seconds": outcome.chip_seconds,
        "usd": cost(outcome.chip_seconds, spec),
        "preemptions": outcome.preemptions,
    }
