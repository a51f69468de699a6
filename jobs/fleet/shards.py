"""The shards of a run that have no part yet, done by a fleet of actors, with progress shown."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import ray
from rich.console import Console

from paliflow.configs import AnnotateSpec, ExtractSpec, FilterSpec
from paliflow.configs.base import printable
from paliflow.configs.summary import StageSeconds, passed_over_said
from paliflow.jobs.fleet.cluster import (
    actor_options,
    awaited,
    connected,
    require_room,
    require_start,
    target_actor_count,
)
from paliflow.jobs.fleet.progress import Progress
from paliflow.jobs.fleet.scheduler import FleetStatus, ShardResult, ShardWorker, drive
from paliflow.jobs.runs.error_limits import ErrorLimits
from paliflow.jobs.runs.parts import present_parts
from paliflow.jobs.runs.plan import Plan

_PATIENCE_S = 10.0
"""Starting takes some seconds; whoever waits for longer is told what for."""


def run_pending_shards(
    actor: Callable[[Any, str, Plan], ShardWorker],
    spec: AnnotateSpec | ExtractSpec | FilterSpec,
    run: str,
    plan: Plan,
    console: Console,
    ray_address: str | None,
) -> tuple[int, StageSeconds]:
    """Has actors do the shards that have no part yet; Ray starts only if there are any.

    Args:
        actor: a class of actors, whose arguments are the next three.
        spec: the run's.
        run: the run's folder.
        plan: the run's plan.
        console: where progress goes.
        ray_address: as in `connected`.

    Returns:
        How many inputs were done before; where the actors' time went.

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
        print(
            f"passed over in the input: {printable(passed_over_said(plan.passed_over))}", flush=True
        )
    stages = StageSeconds()
    if missing:
        limits = ErrorLimits(spec)
        waiting = cache(partial(awaited, spec.actor_resources))

        def report(done: ShardResult, fleet: FleetStatus) -> None:
            if fleet.waiting_s > _PATIENCE_S:
                done = done._replace(notes=(*done.notes, ("waiting", waiting())))
            progress.add(done, fleet)
            require_start(spec, fleet.waiting_s)
            limits.add(done.inputs, len(done.failures), done.failures)

        options = actor_options(spec.actor_resources)
        start = partial(ray.remote(actor).options(**options).remote, spec, run, plan)
        shown = Progress(plan.inputs, already, console, unit.split()[0])
        with connected(ray_address), shown as progress:
            require_room(spec)
            wanted = partial(target_actor_count, spec)
            drive(start, missing, plan.size_of, wanted, report, spec.stall_timeout)
        stages = progress.stages
    return already, stages
