"""One fine-tuning run from spec to manifest: settle, plan, train, export, seal."""

import io
import time
from datetime import UTC, datetime
from importlib.metadata import version

from rich.console import Console

from paliflow.configs.base import SpecError, printable
from paliflow.configs.finetune import FineTuneSpec
from paliflow.configs.summary import FineTuneSummary
from paliflow.jobs import storage
from paliflow.jobs.checkpoints import Resolved, digest_of
from paliflow.jobs.cluster import connected
from paliflow.jobs.examples.plan import ExamplePlan, open_examples, sources_of, write_examples
from paliflow.jobs.identity import require_same
from paliflow.jobs.paths import require_folder, with_absolute_paths
from paliflow.jobs.restarting import settle
from paliflow.jobs.runs import read_summary, seal
from paliflow.jobs.scoring import metrics_of
from paliflow.jobs.training.card import model_card
from paliflow.jobs.training.export import model_folder, model_uri
from paliflow.jobs.training.gang import train
from paliflow.jobs.training.log import read_log
from paliflow.jobs.training.start import begin, steps_of
from paliflow.jobs.training.watch import Watch
from paliflow.jobs.training.worker import Job, Outcome
from paliflow.model import local_copy

_PACKAGES = "paliflow", "ray", "jax", "flax", "optax", "orbax-checkpoint", "grain", "pyarrow"


def finetune(
    spec: FineTuneSpec, console: Console, ray_address: str | None = None
) -> FineTuneSummary:
    """Does what a run lacks and seals it with its manifest.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress goes.
        ray_address: as in `connected`.

    Raises:
        SpecError: the user must change something: the examples, the checkpoint, a pattern, a run
            id that another spec has taken, the learning rate where the loss is no number any more.
        ClusterError: the cluster is not there.
        RuntimeError: workers keep dying.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    spec = settle(with_absolute_paths(spec))
    run = spec.location
    if summary := read_summary(run, FineTuneSummary):
        require_same(summary.spec, spec)
        print(f"run {spec.run_id} is finished already: {printable(run)}", flush=True)
        return summary
    require_folder(spec)
    start = begin(spec)
    plan = write_examples(run, sources_of(spec), spec)
    _check_metrics(spec, plan)
    examples = sum(source.examples for source in plan.sources if source.name.startswith("train/"))
    job = Job(spec, start, plan, steps_of(spec, examples))
    print(
        f"{examples} examples, {job.steps.total} steps of {spec.batch_size}, from "
        f"{printable(start.checkpoint)}, to {printable(run)}",
        *map(printable, plan.dropped()),
        sep="\n",
        flush=True,
    )
    with connected(ray_address), Watch(run, job.steps.total, console):
        outcome = train(job)
    summary = _summary(job, outcome, started, time.monotonic() - clock)
    seal(summary)
    return read_summary(run, FineTuneSummary) or summary


def _check_metrics(spec: FineTuneSpec, plan: ExamplePlan) -> None:
    """
    Raises:
        SpecError: a validation set needs `metrics`, or `best` names none of them.
    """
    figures = set()
    for name, chosen in spec.validation.items():
        prefixes = {e.prefix for e in open_examples(spec.location, plan, name)}
        metrics = metrics_of(name, chosen.metrics, prefixes)
        figures |= {f"{name}/{figure}" for figure in ("loss", *metrics)}
    if spec.best and spec.best not in figures:
        raise SpecError(f"best={spec.best!r}: there are {', '.join(sorted(figures))}")


def _summary(job: Job, outcome: Outcome, started: datetime, seconds: float) -> FineTuneSummary:
    """Writes what the model lacks beside its weights, and sums the run up."""
    spec, start, steps = job.spec, job.start, job.steps
    run = spec.location
    lines = read_log(run)
    losses = [line["loss"] for line in lines if "loss" in line][-max(1, steps.total // 20) :]
    looks = {line.pop("step"): line for line in lines if "loss" not in line}
    figures = looks.get(outcome.best_step, {})
    versions = {name: version(name) for name in _PACKAGES}
    with local_copy(start.tokenizer) as path, path.open("rb") as file:
        storage.overwrite(f"{model_folder(spec)}/tokenizer.model", file)
    card = model_card(job, outcome, looks.get(0, {}), figures, versions)
    storage.overwrite(f"{model_folder(spec)}/README.md", io.BytesIO(card.encode()))
    digest = digest_of(Resolved(model_uri(spec), None), f"{model_folder(spec)}/tokenizer.model")
    return FineTuneSummary(
        run_id=spec.run_id,
        location=run,
        spec=spec.model_dump(mode="json"),
        checkpoint=start.checkpoint,
        checkpoint_sha256=start.checkpoint_sha256,
        started=started,
        finished=datetime.now(UTC),
        seconds=seconds,
        versions=versions,
        model=model_uri(spec),
        model_sha256=digest,
        steps=steps.total,
        best_step=outcome.best_step,
        examples=steps.total * spec.batch_size,
        errors=outcome.errors,
        error_reasons=outcome.reasons,
        loss=sum(losses) / max(1, len(losses)),
        figures=figures,
        examples_per_second=outcome.examples_per_second,
    )
