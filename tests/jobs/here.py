"""Jobs with their one actor in this process: all of a job but the fleet that shares its work.

For tests of what a run reads, asks and writes. Who does it, and what happens when actors die, is
what the tests with a `cluster` are about.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from paliflow.configs import (
    AnnotateSpec,
    EvaluateSpec,
    EvaluateSummary,
    ExtractSpec,
    ExtractSummary,
    FilterSpec,
    FilterSummary,
    RunSummary,
)
from paliflow.configs.summary import StageSeconds
from paliflow.jobs.annotate import job as annotation
from paliflow.jobs.evaluate import job as evaluation
from paliflow.jobs.extract import job as extraction
from paliflow.jobs.fleet import shards
from paliflow.jobs.fleet.scheduler import ShardWorker
from paliflow.jobs.fleet.shards import FleetResult
from paliflow.jobs.runs.parts import present_parts
from paliflow.jobs.runs.plan import Plan
from paliflow.jobs.safety import job as safety


@contextmanager
def fleet_here() -> Iterator[None]:
    """Jobs that begin now have one actor, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "run_pending_shards", _run_pending_shards)
        yield


def annotate_here(spec: AnnotateSpec) -> RunSummary:
    """As `jobs.annotate.job.annotate`."""
    with fleet_here():
        return annotation.annotate(spec, Console())


def evaluate_here(spec: EvaluateSpec) -> EvaluateSummary:
    """As `jobs.evaluate.job.evaluate`, which has an annotation run ask the questions."""
    with fleet_here():
        return evaluation.evaluate(spec, Console())


def extract_here(spec: ExtractSpec) -> ExtractSummary:
    """As `jobs.extract.job.extract`."""
    with fleet_here():
        return extraction.extract(spec, Console())


def filter_here(spec: FilterSpec) -> FilterSummary:
    """As `jobs.safety.job.filter`."""
    with fleet_here():
        return safety.filter(spec, Console())


def _run_pending_shards(
    actor: Callable[[Any, str, Plan], ShardWorker], spec: Any, run: str, plan: Plan, *_: object
) -> FleetResult:
    """As `jobs.fleet.shards.run_pending_shards`, without a limit of errors on the way."""
    done = present_parts(run)
    stages = StageSeconds()
    missing = [shard for shard in range(plan.shards) if shard not in done]
    if missing:
        worker = actor(spec, run, plan)
        worker.load()
        for shard in missing:
            stages += worker.process(shard).stages
    return FleetResult(sum(plan.size_of(shard) for shard in done), stages)
