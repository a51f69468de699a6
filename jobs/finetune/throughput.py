"""What the devices do: how fast, how full; and what all processes have counted."""

import json
import time
from collections import Counter, deque
from collections.abc import Iterable
from functools import partial

import jax
import numpy as np
from jax.experimental import multihost_utils

from paliflow.configs.chips import catalogue
from paliflow.configs.finetune import FineTuneSpec
from paliflow.model.flops import train_flops
from paliflow.model.train import Trainer

_WINDOW = 20
_GATHERED_BYTES = 4096


class Speed:
    """How fast the devices train: pauses left out, and the first step, which compiles."""

    def __init__(self, spec: FineTuneSpec, trainer: Trainer) -> None:
        """Knows what a step of the spec takes."""
        chip = catalogue().of_device(jax.devices()[0].device_kind)
        self._peak = chip and chip.flops("bfloat16") * jax.device_count()
        self._flops = partial(
            train_flops,
            trainer.config,
            spec.max_tokens,
            images=spec.frames_per_example,
            trained=trainer.trained,
        )
        self._recent: deque[tuple[int, int, float]] = deque(maxlen=_WINDOW)
        self._examples, self._seconds = 0, 0.0
        self._since: float | None = None
        self._compiled = False

    def resume_timer(self) -> None:
        """Time counts from now."""
        self._since = time.monotonic()

    def step(self, examples: int, targets: int) -> dict[str, float]:
        """Counts a step; what is known of the last few: rate, MFU and peak bytes of memory.

        Args:
            examples: of the step.
            targets: tokens of their suffixes.
        """
        now = time.monotonic()
        if self._compiled and self._since is not None:
            self._recent.append((examples, targets, now - self._since))
            self._examples += examples
            self._seconds += now - self._since
        self._since, self._compiled = now, True
        known: dict[str, float] = {}
        if self._recent:
            counted, scored, seconds = map(sum, zip(*self._recent, strict=True))
            rate = counted / max(1e-9, seconds)
            known["examples_per_second"] = round(rate, 3)
            if self._peak:
                known["mfu"] = round(rate * self._flops(scored / counted) / self._peak, 4)
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        if bytes_used := max(each.get("peak_bytes_in_use", 0) for each in stats):
            known["hbm"] = bytes_used
        return known

    @property
    def overall(self) -> float:
        """Examples a second of all steps that counted."""
        return self._examples / self._seconds if self._seconds else 0.0


def gather_counts(texts: Iterable[str]) -> Counter[str]:
    """How often each text occurs in all processes; the most common, where there are many.

    Every process has to call it at once.
    """
    own = Counter(text[:300] for text in texts)
    if jax.process_count() == 1:
        return own
    while len(packed := json.dumps(own).encode()) > _GATHERED_BYTES:
        own = Counter(dict(own.most_common(len(own) // 2)))
    row = np.frombuffer(packed.ljust(_GATHERED_BYTES), np.uint8)
    rows = multihost_utils.process_allgather(row)
    return sum((Counter(json.loads(bytes(each))) for each in np.asarray(rows)), Counter())
