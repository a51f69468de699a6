"""Annotators that take a CPU's devices for the chips of a TPU host.

Imported by their processes alone: whoever imports this accepts CPUs for TPUs.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from jax._src import cache_key

from paliflow.jobs.annotate import model
from paliflow.jobs.annotate.actor import Annotator
from paliflow.jobs.annotate.follower import Follower
from paliflow.jobs.fleet.scheduler import ShardResult

vars(model).update(require_accelerators=lambda *_: None, require_mesh=lambda *_: None)
# A CPU's programs are kept under its process's number too, and JAX has the first process alone keep
# programs: all others would compile theirs whenever they start.
vars(cache_key).update(_hash_accelerator_config=cache_key._hash_devices)


class CpuAnnotator(Annotator):
    """While there is a file `steps`, waits after a shard until somebody takes a file `pause` away.

    It says by another file that it waits.
    """

    FOLLOWER = "paliflow.tests.jobs.fleet.cpu_slices:CpuFollower"

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        output = Path(self._spec.output)
        steps, pause = output / "steps", output / "pause"
        while steps.exists() and pause.exists():
            (output / f"paused {os.getpid()}").touch()
            time.sleep(0.05)
        done = super().process(shard, quarantined)
        pause.touch()
        return done


class CpuFollower(Follower):
    """As its base."""
