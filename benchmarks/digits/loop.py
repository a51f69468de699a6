"""A resumable training loop: batches composed ahead, checkpoints, a line with the time left."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

_LINE_EVERY = 50
_SAVE_EVERY = 500


class State(Protocol):
    """All that changes from step to step, a pytree."""

    step: jax.Array


S = TypeVar("S", bound=State)
B = TypeVar("B")


def fit(
    directory: Path,
    state: S,
    step: Callable[[S, B], tuple[S, dict[str, jax.Array]]],
    make_batch: Callable[[int], B],
    steps: int,
) -> S:
    """Trains to `steps`, from `state` or from the newest checkpoint in `directory`.

    Args:
        directory: for checkpoints; the newest two are kept.
        state: where to start, and what a checkpoint looks like.
        step: returns the next state and its `loss`.
        make_batch: of a step, by its number.
        steps: where to end.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with ocp.CheckpointManager(directory.absolute(), options=options) as manager:
        if (newest := manager.latest_step()) is not None:
            state = manager.restore(newest, args=ocp.args.StandardRestore(state))
        first, started = int(state.step), time.monotonic()
        losses: list[Any] = []
        for number, batch in enumerate(_ahead(make_batch, first, steps), first + 1):
            state, metrics = step(state, batch)
            losses.append(metrics["loss"])
            if number % _LINE_EVERY == 0:
                rate = (number - first) / (time.monotonic() - started)
                left = (steps - number) / rate / 60
                print(
                    f"step {number}/{steps}  loss {np.mean(losses):.4f}"
                    f"  {rate:.2f} steps/s  {left:.0f} min left",
                    flush=True,
                )
                losses.clear()
            if number % _SAVE_EVERY == 0 or number == steps:
                manager.save(number, args=ocp.args.StandardSave(state))
    return state


def _ahead(make_batch: Callable[[int], B], first: int, last: int) -> Iterator[B]:
    """The batches of steps `first` to `last`, composed two ahead in another thread."""
    with ThreadPoolExecutor(1) as pool:
        begun: list[Future[B]] = [
            pool.submit(make_batch, step) for step in range(first, min(first + 2, last))
        ]
        for step in range(first, last):
            if step + 2 < last:
                begun.append(pool.submit(make_batch, step + 2))
            yield begun.pop(0).result()
