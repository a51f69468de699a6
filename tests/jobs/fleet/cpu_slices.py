"""Annotators and workers of a training that take a CPU's devices for the chips of a TPU host.

Imported by their processes alone: whoever imports this accepts CPUs for TPUs.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paliflow.jobs.annotate import model
from paliflow.jobs.annotate.actor import Annotator
from paliflow.jobs.annotate.follower import Follower
from paliflow.jobs.finetune import worker
from paliflow.jobs.fleet import slice_process
from paliflow.jobs.fleet.scheduler import ShardResult

model.require_accelerators = worker.require_accelerators = lambda *_: None
model.require_mesh = lambda *_: None
slice_process._HEARTBEAT_S = 10  # instead of 30, so that the tests are done sooner


class CpuAnnotator(Annotator):
    """Waits before a shard while there is a file `pause`, and says so by another."""

    FOLLOWER = "paliflow.tests.jobs.fleet.cpu_slices:CpuFollower"

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        while Path(self._spec.output, "pause").exists():
            Path(self._spec.output, f"paused {os.getpid()}").touch()
            time.sleep(0.05)
        return super().process(shard, quarantined)


class CpuFollower(Follower):
    """As its base."""


def work(packed: dict[str, str]) -> dict[str, Any]:
    """As `worker.work`."""
    return worker.work(packed)
