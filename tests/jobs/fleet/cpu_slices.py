"""Annotators and workers of a training that take a CPU's devices for the chips of a TPU host.

Imported by their processes alone: whoever imports this accepts CPUs for TPUs.
"""

from typing import Any

from paliflow.jobs.annotate import model
from paliflow.jobs.annotate.actor import Annotator
from paliflow.jobs.annotate.follower import Follower
from paliflow.jobs.finetune import worker

for module in (model, worker):
    vars(module).update(require_accelerators=lambda *_: None)
vars(model).update(require_mesh=lambda *_: None)


class CpuAnnotator(Annotator):
    """As its base."""

    FOLLOWER = "paliflow.tests.jobs.fleet.cpu_slices:CpuFollower"


class CpuFollower(Follower):
    """As its base."""


def work(packed: dict[str, str]) -> dict[str, Any]:
    """As `worker.work`."""
    return worker.work(packed)
