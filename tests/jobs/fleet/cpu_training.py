"""A training that takes a CPU's devices for the chips of a TPU host.

Imported by its processes alone: whoever imports this accepts CPUs for TPUs. Annotators do without,
since each of their processes would wait for Ray Train to be imported.
"""

import time
from pathlib import Path
from typing import Any

import jax
from ray.train.v2.api.preemption import PreemptionInfo
from ray.train.v2.api.train_fn_utils import get_preemption_info

from paliflow.jobs.finetune import worker
from paliflow.jobs.finetune.worker import Job

vars(worker).update(require_accelerators=lambda *_: None)

_PREEMPTED_AFTER = 5
"""Steps of a training that may lose a worker: there it waits for the notice."""


def work(packed: dict[str, str]) -> dict[str, Any]:
    """As `worker.work`; notes how many workers there are, and after how many steps they begin."""
    spec, count, asked = Job.unpacked(packed).spec, jax.process_count(), 0
    run = Path(spec.location)
    if jax.process_index() == 0:
        saved = [int(each.name) for each in run.glob("checkpoints/[0-9]*")]
        with (run / "workers").open("a") as file:
            file.write(f"{count} from {max(saved, default=0)}\n")

    def preemption() -> PreemptionInfo | None:
        """Asks as often in each worker, until there is one: then for long, for the node to go."""
        nonlocal asked
        info: PreemptionInfo | None = get_preemption_info()
        asked += 1
        if spec.min_workers and count == spec.workers:
            while asked == _PREEMPTED_AFTER and info is None:
                (run / "waits").touch()
                time.sleep(0.2)
                info = get_preemption_info()
            time.sleep(4.0 if info else 0.0)
        return info

    return worker.work(packed, preemption)
