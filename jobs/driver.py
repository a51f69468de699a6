"""The loop: a queue of shard numbers and a set of actors; the dead give their shard back."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

MAX_DEATHS = 3
"""A shard that has lost this many actors, or as many in a row that die while loading, ends the
run."""
_TICK_S = 1.0


class Done(NamedTuple):
    """What became of a shard."""

    inputs: int
    errors: int
    """Inputs that could not be read."""


def drive(
    start_actor: Callable[[], Any],
    shards: Iterable[int],
    actors: int,
    report: Callable[[Done], None],
) -> None:
    """Has every shard annotated once or, where an actor died over it, again.

    Args:
        start_actor: starts a Ray actor with the methods of `Annotator`; returns its handle.
        shards: what to do, in this order.
        actors: how many to keep; one that dies is replaced.
        report: called in this thread with each shard's outcome, and at least every second with
            an empty one.

    Raises:
        RuntimeError: actors keep dying.
        Exception: whatever an actor raised, as it raised it.
    """
    queue = deque(shards)
    running: dict[Any, tuple[Any, int | None]] = {}  # by pending result; None while loading
    deaths: Counter[int | None] = Counter()

    def hire() -> None:
        actor = start_actor()
        running[actor.load.remote()] = actor, None

    try:
        for _ in range(min(actors, len(queue))):
            hire()
        while queue or any(shard is not None for _, shard in running.values()):
            ready, _ = ray.wait(list(running), timeout=_TICK_S)
            report(Done(0, 0))
            for ref in ready:
                actor, shard = running.pop(ref)
                try:
                    done = ray.get(ref)
                except RayTaskError as error:
                    ray.kill(actor)
                    raise error.cause from error
                except RayError as error:
                    ray.kill(actor)
                    deaths[shard] += 1
                    if deaths[shard] == MAX_DEATHS:
                        what = "loading" if shard is None else f"at shard {shard}"
                        raise RuntimeError(
                            f"{MAX_DEATHS} annotators died {what}; the last: {error}"
                        ) from error
                    if shard is not None:
                        queue.appendleft(shard)
                    hire()
                    continue
                if shard is None:
                    deaths[None] = 0
                else:
                    report(done)
                if queue:
                    shard = queue.popleft()
                    running[actor.annotate.remote(shard)] = actor, shard
                else:
                    ray.kill(actor)
    finally:
        for actor, _ in running.values():
            ray.kill(actor)
