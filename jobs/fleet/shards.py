"""The shards of a run that have no part yet, done by a fleet of actors, with progress shown."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from paliflow.configs import AnnotateSpec, ExtractSpec, FilterSpec
from paliflow.configs.base import printable
from paliflow.configs.log_lines import say
from paliflow.configs.run import FleetSpec, InferenceSpec
from paliflow.configs.summary import StageSeconds, passed_over_said
from paliflow.jobs.fleet.cluster import (
    actor_options,
    awaited,
    connected,
    draining_nodes,
    require_room,
    require_start,
    target_actor_count,
)
from paliflow.jobs.fleet.metrics import RunMetrics
from paliflow.jobs.fleet.process import ShardProcess
from paliflow.jobs.fleet.progress import Progress
from paliflow.jobs.fleet.scheduler import FleetStatus, ShardResult, ShardWorker, drive
from paliflow.jobs.fleet.slice_process import SliceProcess
from paliflow.jobs.runs.error_limits import ErrorLimits
from paliflow.jobs.runs.parts import present_parts, read_parts
from paliflow.jobs.runs.plan import Plan
from paliflow.jobs.runs.spending import Spending

_PATIENCE_S = 10.0
"""Starting takes some seconds; whoever waits for longer is told what for."""


class FleetResult(NamedTuple):
    """What a job has made of a run's shards."""

    already: int
    """Inputs that were done before it."""
    stages: StageSeconds
    """Where its actors' time went."""
    preemptions: int = 0
    """Actors that it lost because their nodes were taken away."""


def run_pending_shards(
    actor: type[ShardWorker],
    spec: AnnotateSpec | ExtractSpec | FilterSpec,
    run: str,
    plan: Plan,
    console: Console,
    ray_address: str | None,
) -> FleetResult:
    """Has actors do the shards that have no part yet; Ray starts only if there are any.

    Args:
        actor: a class of workers at the top of a module, whose arguments are the next three.
        spec: the run's.
        run: the run's folder.
        plan: the run's plan.
        console: where progress goes.
        ray_address: as in `connected`.

    Raises:
        ErrorLimitError: too many inputs fail.
        SpendingLimitError: the run has cost more than it may.
        ClusterError: the cluster is not there, or has no room now, or within `start_timeout`.
        RuntimeError: actors keep dying.
    """
    done = present_parts(run)
    missing = [shard for shard in range(plan.shards) if shard not in done]
    already, preemptions = sum(plan.size_of(shard) for shard in done), 0
    resumed = f", {len(done)} of them done before" if done else ""
    unit = "pieces of videos" if spec.video else "images"
    where = printable(run)
    say(f"{plan.inputs} {unit} in {plan.shards} shards{resumed}, to {where}")
    if plan.passed_over:
        say(f"passed over in the input: {printable(passed_over_said(plan.passed_over))}")
    stages = StageSeconds()
    if missing:
        limits = ErrorLimits(spec)
        spending = Spending(spec) if isinstance(spec, InferenceSpec) else None
        if spending and spending.limited:
            for part in read_parts(run, sorted(done)):
                spending.add(part.inputs, part.device, part.chip_seconds)
        waiting = cache(partial(awaited, spec))

        def report(done: ShardResult, fleet: FleetStatus) -> None:
            nonlocal preemptions
            preemptions = fleet.preemptions
            if fleet.waiting_s > _PATIENCE_S:
                done = done._replace(notes=(*done.notes, ("waiting", waiting())))
            progress.add(done, fleet)
            metrics.add(done, fleet)
            require_start(spec, fleet.waiting_s)
            limits.add(done.inputs, len(done.failures), done.failures)
            if spending:
                spending.add(done.inputs, done.device, done.chip_seconds)

        shown = Progress(plan.inputs, already, console, unit.split()[0])
        with connected(ray_address), shown as progress:
            require_room(spec)
            metrics = RunMetrics(spec.run_id)
            start, wanted = _starter(actor, spec, run, plan), partial(target_actor_count, spec)
            drive(start, missing, plan.size_of, wanted, report, spec.stall_timeout, draining_nodes)
        stages = progress.stages
    return FleetResult(already, stages, preemptions)


def _starter(actor: type[ShardWorker], spec: FleetSpec, *arguments: Any) -> Callable[[], Any]:
    """What starts an actor: a process on one host or, speaking for them, one on each of a slice."""
    worker = f"{actor.__module__}:{actor.__name__}"
    resources, labels = spec.actor_resources, spec.actor_labels
    # Ray shows an actor under its class's name.
    if slice_ := spec.actor_slice:
        remote: Any = ray.remote(type(actor.__name__, (SliceProcess,), {}))
        # Where the driver is, so that it is lost with no other host.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = actor_options({}, {}) | {"scheduling_strategy": here}
        placed = worker, slice_, labels, resources["CPU"]
        return partial(remote.options(**options).remote, *placed, spec, *arguments)
    remote = ray.remote(type(actor.__name__, (ShardProcess,), {}))
    options = actor_options(resources, labels)
    chips = resources.get("TPU", 0.0)
    return partial(remote.options(**options).remote, worker, chips, spec, *arguments)
