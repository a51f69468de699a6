"""What each worker does: load, restore, step, look, save, export."""

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.errors import JaxRuntimeError
from numpy.typing import NDArray
from ray.train.v2.api.preemption import PreemptionInfo
from ray.train.v2.api.train_fn_utils import get_preemption_info

from paliflow.configs.base import SpecError
from paliflow.configs.finetune import FineTuneSpec
from paliflow.configs.summary import StageSeconds
from paliflow.jobs.examples.feed import Fed, training_feed
from paliflow.jobs.examples.plan import ExamplePlan
from paliflow.jobs.finetune.checkpointing import Checkpoints, Tally
from paliflow.jobs.finetune.export import export
from paliflow.jobs.finetune.log import Log
from paliflow.jobs.finetune.start import Start, Steps, open_weights, recipe_of
from paliflow.jobs.finetune.throughput import Speed, gather_counts
from paliflow.jobs.finetune.validation import Validation
from paliflow.jobs.fleet.accelerators import chips, require_accelerators
from paliflow.jobs.fleet.stages import ChipClock, StageClock
from paliflow.jobs.registry.checkpoints import opened
from paliflow.jobs.registry.locations import Resolved
from paliflow.jobs.runs.error_limits import ErrorLimits
from paliflow.jobs.runs.spending import check_limit, require_price
from paliflow.model.batch_size import host_memory
from paliflow.model.sharding import global_batch, global_mesh
from paliflow.model.train import Trainer
from paliflow.model.weights import Leaf
from paliflow.model.xla import training_backend

_LOSSES_SHOWN = 5
Preemption = Callable[[], PreemptionInfo | None]
"""What is known of nodes that are about to be taken away: the same in all workers, who ask as
often."""


class Job(NamedTuple):
    """What the workers of a run are told."""

    spec: FineTuneSpec
    start: Start
    plan: ExamplePlan
    steps: Steps

    def packed(self) -> dict[str, str]:
        """As JSON: what it passes on its way need not import the classes to read it."""
        models = {"spec": self.spec, "start": self.start, "plan": self.plan}
        packed = {name: model.model_dump_json() for name, model in models.items()}
        return {**packed, "steps": json.dumps(self.steps)}

    @classmethod
    def unpacked(cls, packed: Mapping[str, str]) -> "Job":
        """The inverse of `packed`."""
        return cls(
            FineTuneSpec.parse(packed["spec"]),
            Start.parse(packed["start"]),
            ExamplePlan.parse(packed["plan"]),
            Steps(*json.loads(packed["steps"])),
        )


class Outcome(NamedTuple):
    """What becomes of a training."""

    best_step: int
    errors: int
    reasons: dict[str, int]
    examples_per_second: float
    stages: StageSeconds
    """Where the first worker's time went, from the first step on."""
    chip_seconds: dict[str, float]
    """How long all workers held their chips, by JAX's name of the device; of all jobs."""
    preemptions: int
    """Nodes that were announced to be taken away; of all jobs."""

    def packed(self) -> dict[str, Any]:
        """As plain values, like `Job.packed`."""
        return {**self._asdict(), "stages": asdict(self.stages)}

    @classmethod
    def unpacked(cls, packed: Mapping[str, Any]) -> "Outcome":
        """The inverse of `packed`."""
        return cls(**{**packed, "stages": StageSeconds(**packed["stages"])})


def work(packed: dict[str, str], preemption: Preemption = get_preemption_info) -> dict[str, Any]:
    """Trains to the end, from the newest checkpoint if there is one; Ray Train calls it.

    Args:
        packed: a `Job`.
        preemption: asked after every step.

    Returns:
        An `Outcome`, packed.

    Raises:
        SpecError: the user must change something.
    """
    with ExitStack() as stack:
        return _Training(Job.unpacked(packed), stack, preemption).run().packed()


def _require_divisible(batch_size: int, accumulate: int, devices: int) -> None:
    """
    Raises:
        SpecError: a batch cannot be cut into equal parts for all devices.
    """
    if batch_size % (accumulate * devices):
        raise SpecError(
            f"batch_size={batch_size} has to divide by accumulate={accumulate} times {devices} "
            "devices"
        )


def _require_room_for_images(spec: FineTuneSpec, image_size: int) -> None:
    """
    Raises:
        SpecError: this host's memory does not hold the images of its part of a batch.
    """
    # uint8 [B, F, size, size, 3]
    rows = spec.batch_size // jax.process_count() * spec.frames_per_example
    images, there = rows * image_size**2 * 3, host_memory()
    if images > there:
        raise SpecError(
            f"batch_size={spec.batch_size}: its images take {images / 2**30:.1f} GiB of this "
            f"host's memory, which has {there / 2**30:.1f}; lower it"
        )


class _Training:
    """One worker's part of a run. Every process makes the same calls in the same order."""

    def __init__(self, job: Job, stack: ExitStack, preemption: Preemption) -> None:
        self._job, self._stack, self._preemption = job, stack, preemption
        self._leaving: set[str] = set()  # nodes
        spec, steps = job.spec, job.steps
        require_accelerators("accelerators_per_worker", spec.accelerators_per_worker)
        self._held, self._kind = ChipClock(chips(jax.devices())), jax.devices()[0].device_kind
        require_price(self._kind, spec)
        self._mesh = global_mesh()
        _require_divisible(spec.batch_size, spec.accumulate, self._mesh.size)
        start = Resolved(job.start.checkpoint, job.start.checkpoint_sha256)
        with opened(start, job.start.tokenizer) as files:
            self._tokenizer = files.tokenizer
            config, leaves = open_weights(files.path, spec)
            _require_room_for_images(spec, config.image_size)
            backend = training_backend(self._mesh)
            self._trainer = Trainer(config, recipe_of(spec, steps), self._mesh, backend)
            self._state, self._frozen = self._trainer.init(_unread(leaves))
        self._image_size = config.image_size
        self._checkpoints = stack.enter_context(Checkpoints(spec.location, spec.keep, spec.best))
        self._tally, self._first = Tally(0, Counter(), {}), 0
        if restored := self._checkpoints.restore(self._trainer.abstract[0]):
            self._state, self._tally = restored
            self._first = int(self._state.step)
            self._check_cost(self._first)
        self._limits = ErrorLimits(spec)
        self._limits.add(self._tally.drawn, self._tally.reasons.total(), self._tally.reasons)
        self._log = None
        if jax.process_index() == 0:
            self._log = Log(spec.location, self._first, steps.total)
            stack.callback(self._log.close)
        self._validation = Validation(job.plan, spec, self._trainer, self._tokenizer)
        self._speed = Speed(spec, self._trainer)
        self._losses: deque[float] = deque(maxlen=_LOSSES_SHOWN)
        self._clock, self._stages = StageClock(), StageSeconds()
        self._watcher = stack.enter_context(ThreadPoolExecutor(1, "watcher"))

    def run(self) -> Outcome:
        spec, steps = self._job.spec, self._job.steps
        if self._first == 0:
            self._validate(0)
        feed = training_feed(
            spec.location,
            self._job.plan,
            spec,
            self._tokenizer,
            self._image_size,
            first_step=self._first,
            total_steps=steps.total,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        # The device computes a step while the figures of the one before it are looked at.
        waiting: deque[tuple[int, dict[str, jax.Array], tuple[str, ...]]] = deque()
        self._speed.resume_timer()
        self._clock.take()
        for step, fed in enumerate(self._awaited(feed), self._first + 1):
            batch = global_batch(fed.batch, self._mesh)
            self._clock.begin("device")
            self._state, metrics = self._trainer.step(self._state, self._frozen, batch)
            self._watcher.submit(self._watch, metrics)
            waiting.append((step, metrics, fed.failures))
            look = step % steps.validate_every == 0 or step == steps.total
            save = step % steps.save_every == 0 or step == steps.total or (look and spec.best)
            save = self._preempted() or save  # all workers ask after every step
            while len(waiting) > (0 if look or save else 1):
                self._account(*waiting.popleft())
            with self._clock.stage("device"):
                figures = self._validate(step) if look else {}
            if save:
                with self._clock.stage("commit"):
                    self._save(step, figures)
            if look or save:
                self._speed.resume_timer()
        self._limits.check()
        with self._clock.stage("commit"):
            best_step = self._export()
        self._count_chips()
        return Outcome(
            best_step=best_step,
            errors=self._tally.reasons.total(),
            reasons=dict(self._tally.reasons),
            examples_per_second=self._speed.overall,
            stages=self._spent(),
            chip_seconds=self._tally.chip_seconds,
            preemptions=self._tally.preemptions,
        )

    def _preempted(self) -> bool:
        """Whether a node has been announced to be taken away since the last step."""
        info = self._preemption()
        new = set(info.preempted_node_ids if info else ()) - self._leaving
        self._leaving |= new
        self._tally = self._tally._replace(preemptions=self._tally.preemptions + len(new))
        return bool(new)

    def _awaited(self, feed: Iterator[Fed]) -> Iterator[Fed]:
        """The feed's batches; the time that they take to come is counted."""
        while True:
            with self._clock.stage("read"):
                fed = next(feed, None)
            if fed is None:
                return
            yield fed

    def _watch(self, metrics: Mapping[str, jax.Array]) -> None:
        """Notices when the devices are done with a step."""
        try:
            with suppress(JaxRuntimeError):  # which `_account` raises again
                jax.block_until_ready(metrics)
        finally:
            self._clock.end("device")

    def _spent(self) -> StageSeconds:
        self._stages += self._clock.take()
        return self._stages

    def _account(
        self, step: int, metrics: Mapping[str, jax.Array], failures: tuple[str, ...]
    ) -> None:
        """Logs a step that was taken.

        Raises:
            SpecError: it is beyond repair, or too many examples have failed.
        """
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        drawn = self._job.spec.batch_size
        failed = drawn - round(values.pop("examples"))
        targets = round(values.pop("targets"))
        loss, norm = values["loss"], values["grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise SpecError(
                f"step {step}: the loss is {loss:g} and the gradient's norm {norm:g}; the losses "
                f"before were {', '.join(f'{each:.4g}' for each in self._losses) or 'none'}. "
                f"Lower learning_rate={self._job.spec.learning_rate:g}, or warm up for longer, in "
                "a run with another run_id"
            )
        self._losses.append(loss)
        reasons = gather_counts(failures) if failed else Counter[str]()
        self._tally = self._tally._replace(
            drawn=self._tally.drawn + drawn, reasons=self._tally.reasons + reasons
        )
        self._limits.add(drawn, failed, reasons)
        speed = self._speed.step(drawn, targets)
        stages = self._spent()
        speed["read"] = round(stages.share(stages.read), 4)
        if self._log:
            self._log.write(step, {**values, **speed, "errors": self._tally.reasons.total()})

    def _validate(self, step: int) -> dict[str, float]:
        figures = self._validation(self._state, self._frozen)
        if self._log and figures:
            self._log.write_figures(step, figures)
        return figures

    def _save(self, step: int, figures: dict[str, float]) -> None:
        if self._log:
            self._log.flush()
        self._count_chips()
        if step > self._first:
            self._checkpoints.save(step, self._state, self._tally, figures)
        if self._log:  # the processes' clocks differ, and one that raises ends all
            self._check_cost(step)

    def _count_chips(self) -> None:
        """Adds the time since it was last asked to the tally."""
        before = self._tally.chip_seconds
        held = before.get(self._kind, 0.0) + self._held.take()
        self._tally = self._tally._replace(chip_seconds={**before, self._kind: held})

    def _check_cost(self, step: int) -> None:
        """
        Raises:
            SpendingLimitError: the steps so far have cost more than the spec allows, and there are
                more to come.
        """
        spec = self._job.spec
        if step < self._job.steps.total:
            check_limit(self._tally.chip_seconds, f"{step} steps", spec)

    def _export(self) -> int:
        """Writes the model; returns the step that it is of."""
        step, state = self._job.steps.total, self._state
        best = self._checkpoints.best_step()
        if best is not None and best != step:
            restored = self._checkpoints.restore(self._trainer.abstract[0], best)
            step, state = best, restored[0] if restored else state
        export(self._job.spec, self._trainer, state, self._frozen)
        return step


def _unread(leaves: Mapping[str, Leaf]) -> dict[str, Any]:
    """A tree whose leaves are read when they are made arrays, one at a time."""
    flat = {path: _Unread(leaf) for path, leaf in leaves.items()}
    tree: dict[str, Any] = traverse_util.unflatten_dict(flat, sep="/")
    return tree


class _Unread:
    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self._leaf.read(np.dtype(dtype or np.float32))
