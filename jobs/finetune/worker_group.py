"""Ray Train's group of workers: one a host, all devices one mesh; restarted where one dies."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import ray
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError
from ray.train.v2.jax import JaxConfig, JaxTrainer

from paliflow.configs.base import ClusterError, SpecError
from paliflow.configs.finetune import FineTuneSpec
from paliflow.configs.log_lines import say
from paliflow.jobs.finetune.stop import GiveUp, Stop
from paliflow.jobs.finetune.worker import Job, Outcome, work
from paliflow.jobs.fleet.cluster import described, places

_QUICKER = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}
"""Ray Train looks at its workers every two seconds, and at their nodes every five, of the fifteen
that a preemption's notice may be."""
_TURN_S = 60.0


def train(job: Job) -> Outcome:
    """Runs `work` in as many workers as the spec has, joined by `jax.distributed`.

    With `min_workers` Ray Train takes as many of them as there is room for, and starts all of them
    anew, from the newest checkpoint, when that changes.

    Raises:
        SpecError: what `work` found, untouched by any retry.
        ClusterError: the cluster had no room for them within `start_timeout`.
        RuntimeError: workers died more than `max_failures` times.
    """
    spec = job.spec
    # Ray Train waits for room in turns, and `GiveUp` looks at the clock between them.
    turn = str(min(_TURN_S, spec.start_timeout))
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = turn
    _say_if_waiting(spec)
    for name, value in _QUICKER.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory(prefix="paliflow-") as folder:
        trainer = JaxTrainer(
            work,
            train_loop_config=job.packed(),
            jax_config=_jax_config(spec.workers, spec.accelerators_per_worker),
            scaling_config=_scaling(spec),
            run_config=_run_config(spec, folder),
        )
        try:
            return Outcome.unpacked(trainer.fit().return_value)  # type: ignore[attr-defined]
        except ControllerError as error:
            if isinstance(error.controller_failure, SpecError):
                raise error.controller_failure from None
            if isinstance(error.controller_failure, ClusterError | WorkerGroupStartupTimeoutError):
                raise ClusterError(
                    f"start_timeout={spec.start_timeout:g}: for so many seconds "
                    f"{_fewest(spec)} did not start: {described(_resources(spec))}"
                ) from None
            raise RuntimeError(str(error)) from error
        except TrainingFailedError as error:
            raise RuntimeError(
                f"workers died more than max_failures={spec.max_failures} times: {error}"
            ) from error


def _run_config(spec: FineTuneSpec, folder: str) -> RunConfig:
    """How Ray Train restarts workers, and waits for room."""
    return RunConfig(
        name="train",
        storage_path=folder,  # nothing is kept there: checkpoints are Orbax's
        failure_config=FailureConfig(
            max_failures=spec.max_failures,
            controller_failure_limit=-1,  # turns without room: `GiveUp` limits each wait for it
        ),
        callbacks=[Stop(), GiveUp(spec.start_timeout)],  # type: ignore[list-item]
        logging_config=LoggingConfig(log_level="ERROR"),
        worker_runtime_env=_environment(spec.accelerators_per_worker),
    )


def _say_if_waiting(spec: FineTuneSpec) -> None:
    """Ray waits for ever, and in silence, for workers that do not fit: a cluster may grow."""
    wanted, free = _resources(spec), ray.available_resources()
    fewest = spec.possible_workers[0]
    busy = any(free.get(name, 0) < fewest * amount for name, amount in wanted.items())
    if busy or places(wanted) < fewest:
        say(f"waiting for room for {_fewest(spec)}: {described(wanted)}", "warning")


def _fewest(spec: FineTuneSpec) -> str:
    return f"min_workers={spec.min_workers}" if spec.min_workers else f"workers={spec.workers}"


def _resources(spec: FineTuneSpec) -> dict[str, float]:
    return {"CPU": spec.cpus_per_worker, **spec.accelerators_per_worker}


def _scaling(spec: FineTuneSpec) -> ScalingConfig:
    resources = _resources(spec)
    if "GPU" in resources:
        resources["GPU"] = int(resources["GPU"])  # Ray counts a worker's devices with range()
    try:
        return ScalingConfig(
            num_workers=(spec.min_workers, spec.workers) if spec.min_workers else spec.workers,
            use_tpu="TPU" in resources,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
            topology=spec.topology,
            accelerator_type=spec.slice and spec.slice.tpu.ray,
        )
    except ValueError as error:
        raise SpecError(f"workers={spec.workers}, topology={spec.topology!r}: {error}") from None


def _jax_config(workers: int, accelerators: Mapping[str, float]) -> JaxConfig:
    """Who initialises `jax.distributed`: Ray Train, on CPUs too where there are several.

    It does for what it is told are GPUs; `JAX_PLATFORMS=cpu`, which it reads, makes them CPUs.
    """
    tpu, gpu = (kind in accelerators for kind in ("TPU", "GPU"))
    return JaxConfig(use_tpu=tpu, use_gpu=gpu or (not tpu and workers > 1))


def _environment(accelerators: Mapping[str, float]) -> dict[str, Any]:
    return {} if accelerators else {"env_vars": {"JAX_PLATFORMS": "cpu"}}
