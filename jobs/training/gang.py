"""Ray Train's gang: one worker a host, all devices one mesh; it is restarted where one dies."""

import os
import tempfile
from typing import Any

import ray
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError
from ray.train.v2.jax import JaxConfig, JaxTrainer

from paliflow.configs.base import SpecError
from paliflow.configs.finetune import FineTuneSpec
from paliflow.jobs.training.stop import Stop
from paliflow.jobs.training.worker import Job, Outcome, work

_QUICKER = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
"""Ray Train looks at its workers every two seconds, and keeps gauges that nobody reads."""


def train(job: Job) -> Outcome:
    """Runs `work` in as many workers as the spec has, joined by `jax.distributed`.

    Raises:
        SpecError: what `work` found, untouched by any retry.
        RuntimeError: workers died more than `max_failures` times.
    """
    spec = job.spec
    _say_if_waiting(spec)
    for name, value in _QUICKER.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory(prefix="paliflow-") as folder:
        trainer = JaxTrainer(
            work,
            train_loop_config=job.packed(),
            jax_config=_joined(spec),
            scaling_config=_scaling(spec),
            run_config=RunConfig(
                name="train",
                storage_path=folder,  # nothing is kept there: checkpoints are Orbax's
                failure_config=FailureConfig(max_failures=spec.max_failures),
                callbacks=[Stop()],
                logging_config=LoggingConfig(log_level="ERROR"),
                worker_runtime_env=_environment(spec),
            ),
        )
        try:
            outcome = Outcome(**trainer.fit().return_value)  # type: ignore[attr-defined]
        except ControllerError as error:
            if isinstance(error.controller_failure, SpecError):
                raise error.controller_failure from None
            raise RuntimeError(str(error)) from error
        except TrainingFailedError as error:
            raise RuntimeError(
                f"workers died more than max_failures={spec.max_failures} times: {error}"
            ) from error
    return outcome


def _say_if_waiting(spec: FineTuneSpec) -> None:
    """Ray waits for ever, and in silence, for workers that do not fit: a cluster may grow."""
    wanted = {name: spec.workers * amount for name, amount in _resources(spec).items()}
    total = ray.cluster_resources()
    has = {name: total.get(name, 0.0) for name in wanted}
    if any(has[name] < amount for name, amount in wanted.items()):
        print(
            f"waiting for the cluster to grow: workers={spec.workers} take {wanted}, it has {has}",
            flush=True,
        )


def _resources(spec: FineTuneSpec) -> dict[str, float]:
    return {"CPU": spec.cpus_per_worker, **spec.accelerators_per_worker}


def _scaling(spec: FineTuneSpec) -> ScalingConfig:
    resources = _resources(spec)
    if "GPU" in resources:
        resources["GPU"] = int(resources["GPU"])  # Ray counts a worker's devices with range()
    try:
        return ScalingConfig(
            num_workers=spec.workers,
            use_tpu="TPU" in resources,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
            topology=spec.topology,
            accelerator_type=spec.accelerator_type,
        )
    except ValueError as error:
        raise SpecError(f"workers={spec.workers}, topology={spec.topology!r}: {error}") from None


def _joined(spec: FineTuneSpec) -> JaxConfig:
    """Who initialises `jax.distributed`: Ray Train, on CPUs too where there are several.

    It does for what it is told are GPUs; `JAX_PLATFORMS=cpu`, which it reads, makes them CPUs.
    """
    tpu, gpu = (kind in spec.accelerators_per_worker for kind in ("TPU", "GPU"))
    return JaxConfig(use_tpu=tpu, use_gpu=gpu or (not tpu and spec.workers > 1))


def _environment(spec: FineTuneSpec) -> dict[str, Any]:
    if spec.accelerators_per_worker:
        return {}
    return {"env_vars": {"JAX_PLATFORMS": "cpu"}}
