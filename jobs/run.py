"""One annotation run from spec to manifest: plan, drive, verify, seal."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import ray
from rich.console import Console

from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.base import printable
from paliflow.configs.run import RunSpec
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs import storage
from paliflow.jobs.annotator import Annotator
from paliflow.jobs.checkpoints import Resolved, digests_of, resolve, tokenizer_of
from paliflow.jobs.cluster import (
    actor_options,
    awaited,
    connected,
    require_room,
    require_start,
    room,
)
from paliflow.jobs.compact import compact
from paliflow.jobs.driver import Done, Fleet, drive
from paliflow.jobs.identity import require_same
from paliflow.jobs.incremental import only_new
from paliflow.jobs.limits import ErrorLimits
from paliflow.jobs.listing import told
from paliflow.jobs.paths import require_folder, with_absolute_paths
from paliflow.jobs.plan import Item, Plan, read_plan, write_plan
from paliflow.jobs.progress import Progress
from paliflow.jobs.report import REPORT, write_report
from paliflow.jobs.restarting import settle
from paliflow.jobs.runs import read_summary, seal
from paliflow.jobs.sink import REASONS, present_parts, read_parts
from paliflow.jobs.sources import items
from paliflow.jobs.video.cutting import pieces

Digests = Callable[[Resolved], tuple[str, ...]]
_PATIENCE_S = 10.0
"""Starting takes some seconds; whoever waits for longer is told what for."""


def annotate(
    spec: AnnotateSpec,
    console: Console,
    ray_address: str | None = None,
    list_items: Callable[[AnnotateSpec, Counter[str]], Iterator[Item]] = items,
) -> RunSummary:
    """Does what a run lacks and seals it with its manifest; Ray starts only if something lacks.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress goes.
        ray_address: as in `connected`.
        list_items: what the spec's input stands for.

    Raises:
        SpecError: the user must change something: the input, the checkpoint, a prompt, a run id
            that another spec has taken, or an input of which too much is broken.
        ClusterError: the cluster is not there, or has no room now.
        RuntimeError: the parts do not add up to the plan, or actors keep dying.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    spec = settle(with_absolute_paths(spec), ANNOTATIONS)
    run = spec.location
    if summary := read_summary(run):
        require_same(summary.spec, spec)
        print(f"run {spec.run_id} is finished already: {printable(run)}", flush=True)
        return _finish(summary, spec)
    require_folder(spec)

    @cache
    def digests(resolved: Resolved) -> tuple[str, ...]:  # reads all of the weights
        return digests_of(resolved, tokenizer_of(spec, resolved.checkpoint))

    plan = read_plan(run) or _plan(run, spec, digests, list_items)
    require_same(plan.spec, spec)
    already = do_missing(Annotator, spec, run, plan, spec, console, ray_address)
    if summary := read_summary(run):  # another driver was here, and may have compacted the parts
        return _finish(summary, spec)
    seconds = time.monotonic() - clock
    summary = RunSummary(
        run_id=spec.run_id,
        location=run,
        spec=spec.model_dump(mode="json"),
        inputs=plan.inputs,
        **_counts(run, plan, spec, digests),
        shards=plan.shards,
        passed_over=plan.passed_over,
        checkpoint=plan.pinned(spec).checkpoint,
        started=started,
        finished=datetime.now(UTC),
        seconds=seconds,
        images_per_second=(plan.inputs - already) / seconds,
        versions={name: version(name) for name in ("paliflow", "ray", "jax", "flax", "pyarrow")},
    )
    seal(summary)
    return _finish(summary, spec)


def do_missing(
    actor: type[Any],
    given: RunSpec,
    run: str,
    plan: Plan,
    spec: AnnotateSpec,
    console: Console,
    ray_address: str | None,
) -> int:
    """Has actors do the shards that have no part yet; Ray starts only if there are any.

    Args:
        actor: a class with the methods of `Annotator`, whose arguments are the next three.
        given: the run's spec.
        run: the run's folder.
        plan: the run's plan.
        spec: what inputs there are, how many may fail, and what an actor needs.
        console: where progress goes.
        ray_address: as in `connected`.

    Returns:
        How many inputs were done before.

    Raises:
        ErrorLimitError: too many inputs fail.
        ClusterError: the cluster is not there, or has no room now, or within `start_timeout`.
        RuntimeError: actors keep dying.
    """
    done = present_parts(run)
    missing = [shard for shard in range(plan.shards) if shard not in done]
    already = sum(plan.size_of(shard) for shard in done)
    resumed = f", {len(done)} of them done before" if done else ""
    unit = "pieces of videos" if spec.video else "images"
    where = printable(run)
    print(f"{plan.inputs} {unit} in {plan.shards} shards{resumed}, to {where}", flush=True)
    if plan.passed_over:
        print(f"passed over in the input: {printable(told(plan.passed_over))}", flush=True)
    if missing:
        limits = ErrorLimits(spec)
        waiting = cache(partial(awaited, spec))

        def report(done: Done, fleet: Fleet) -> None:
            if fleet.waiting_s > _PATIENCE_S:
                done = done._replace(notes=(*done.notes, ("waiting", waiting())))
            progress.add(done, fleet)
            require_start(spec, fleet.waiting_s)
            limits.add(done.inputs, len(done.failures), done.failures)

        start = partial(ray.remote(actor).options(**actor_options(spec)).remote, given, run, plan)
        shown = Progress(plan.inputs, already, console, unit.split()[0])
        with connected(ray_address), shown as progress:
            require_room(spec)
            wanted = partial(room, spec)
            drive(start, missing, plan.size_of, wanted, report, spec.stall_timeout)
    return already


def _plan(
    run: str,
    spec: AnnotateSpec,
    digests: Digests,
    list_items: Callable[[AnnotateSpec, Counter[str]], Iterator[Item]],
) -> Plan:
    resolved = resolve(spec)
    passed_over: Counter[str] = Counter()
    found = list_items(spec, passed_over)
    if spec.only_new:
        found = only_new(found, spec, digests(resolved))
    if spec.video:
        found = pieces(found, spec)
    return write_plan(run, found, spec.model_dump(mode="json"), resolved, passed_over)


def _counts(run: str, plan: Plan, spec: AnnotateSpec, digests: Digests) -> dict[str, Any]:
    """What the parts say they hold, if that is what the plan wants.

    Raises:
        ErrorLimitError: they do, but for too many errors.
        RuntimeError: they do not belong together.
    """
    inputs = rows = errors = cut = 0
    reasons: Counter[str] = Counter()
    checkpoints: set[str] = set()
    limits = ErrorLimits(spec)
    for part in read_parts(run, range(plan.shards)):
        inputs += part.inputs
        rows += part.rows
        errors += part.errors
        cut += part.cut
        reasons.update(part.reasons)
        checkpoints.add(part.checkpoint_sha256)
        limits.add(part.inputs, part.failed, part.reasons)
    if inputs != plan.inputs or plan.rows not in (None, rows):
        raise RuntimeError(
            f"the parts of {run} have {rows} rows of {inputs} inputs; its plan makes {plan.rows} "
            f"of {plan.inputs}"
        )
    if len(checkpoints) > 1:
        raise RuntimeError(
            f"the parts of {run} come from {len(checkpoints)} different checkpoints: those at "
            f"{plan.pinned(spec).checkpoint} changed during the run; start another with a new "
            "run_id"
        )
    limits.check()
    return {
        "rows": rows,
        "ok": rows - errors,
        "errors": errors,
        "cut": cut,
        "error_reasons": dict(reasons.most_common(REASONS)),
        "checkpoint_sha256": checkpoints.pop() if checkpoints else digests(plan.pinned(spec))[0],
    }


def _finish(summary: RunSummary, spec: AnnotateSpec) -> RunSummary:
    """What a sealed run may still lack, because its job died before: other views of its rows.

    A part that another driver committed while this run was compacted goes in the same stroke.
    """
    if spec.compact or summary.files:
        summary = compact(summary)
    if spec.report and not storage.is_file(f"{summary.location}/{REPORT}"):
        try:
            write_report(summary)
        except Exception as error:  # the rows are whole; nobody shall lose them over a picture
            print(f"no report: {type(error).__name__}: {printable(str(error))}", flush=True)
    return summary
