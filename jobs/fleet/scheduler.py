"""The scheduler: hands shards to a changing set of actors; requeues those of actors that die."""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from paliflow.configs.summary import StageSeconds

SUSPICIOUS = 2
"""A shard that has lost this many actors is tried input by input, to find the culprit."""
MAX_DEATHS = 3
"""So many actors lost over one input make it an error row; so many in a row while loading, or over
a shard whose inputs do no harm one by one, end the run."""
_AT_ONCE = 2
"""Shards given to an actor: it reads the second while it computes the first."""
_TICK_S = 1.0
_SCALE_INTERVAL_S = 5.0


class ShardResult(NamedTuple):
    """What became of a shard."""

    inputs: int = 0
    failures: tuple[str, ...] = ()
    """Why inputs failed, one reason for each that did."""
    stages: StageSeconds = StageSeconds()
    """Where the actor's time went since its last result."""
    notes: tuple[tuple[str, str], ...] = ()
    """What the actor wants to be known, each under a name: of actors alike, one is enough."""
    tokens: int = 0
    """Tokens generated."""
    chip_seconds: float = 0.0
    """How long the actor held its chips since its last result, times their number."""
    device: str = ""
    """JAX's name of the chips; empty where no device was used."""


class WorkerLostError(Exception):
    """A worker of several processes has lost one of them, and is of no more use."""


class Heartbeat(NamedTuple):
    """A sign of life."""

    inputs: int
    """Inputs that the actor has answered since it started."""
    moved: int
    """Changes whenever it has read an input or had one answered, and while a long one is read."""
    nodes: frozenset[str] = frozenset()
    """The ids of the Ray nodes that the actor is on: several, if it has several processes."""


class ShardWorker(Protocol):
    """What the scheduler asks of an actor. Two shards may be under way in one at the same time.

    Whatever it is asked, an actor of several processes may raise `WorkerLostError`.
    """

    def load(self) -> tuple[tuple[str, str], ...]:
        """Makes ready what all shards need; what is worth knowing of it, as `ShardResult.notes`."""

    def heartbeat(self) -> Heartbeat:
        """Says how far it is, at any time."""

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        """Does a shard and commits its part.

        Args:
            shard: of the plan.
            quarantined: inputs not to touch, by their place in the shard, and why.
        """

    def probe(self, shard: int, place: int) -> None:
        """Does one input of a shard and commits nothing, to see whether it kills the actor."""


class FleetStatus(NamedTuple):
    """Where the work stands, between two reports."""

    actors: int
    """Actors that have loaded."""
    in_flight: int
    """Inputs that are answered and not yet committed."""
    starting: int = 0
    """Actors that are asked for and that the cluster has not started yet."""
    waiting_s: float = 0.0
    """Seconds since there was an actor that had started."""
    preemptions: int = 0
    """Actors lost so far because their nodes were taken away."""
    queued: int = 0
    """Shards that no actor has."""


@dataclass
class _Search:
    """The hunt for the input that kills the actors of a shard."""

    inputs: int
    at: int = 0
    deaths: int = 0
    quarantined: dict[int, str] = field(default_factory=dict)


@dataclass(eq=False)
class _Worker:
    actor: Any
    tasks: dict[Any, int | None] = field(default_factory=dict)  # result -> shard, None to load
    heartbeat: Any = None  # the pending sign of life
    answered: int = 0
    moved: int = 0
    committed: int = 0
    alive_at: float | None = None  # when it last moved; None until it has started
    loaded: bool = False
    nodes: frozenset[str] = frozenset()  # unknown until it has started


def drive(
    start_actor: Callable[[], Any],
    shards: Iterable[int],
    size_of: Callable[[int], int],
    wanted: Callable[[], int],
    report: Callable[[ShardResult, FleetStatus], None],
    stall_timeout: float,
    draining: Callable[[], Collection[str]] = tuple,
) -> None:
    """Has every shard processed once or, where an actor died over it, again.

    Args:
        start_actor: starts a Ray actor with the methods of `ShardWorker`; returns its handle.
        shards: what to do, in this order.
        size_of: how many inputs a shard has.
        wanted: how many actors there should be now; asked every few seconds.
        report: called in this thread with each shard's outcome, and at least every second with
            an empty one.
        stall_timeout: an actor that answers nothing for so many seconds is killed.
        draining: the ids of nodes that are about to be taken away; asked every second. Actors on
            them are ended at once, and nobody is blamed for that or for what dies there.

    Raises:
        RuntimeError: actors keep dying.
        Exception: whatever an actor or `report` raised, as it was raised.
    """
    scheduler = _Scheduler(start_actor, deque(shards), size_of, report, stall_timeout, draining)
    census = polled = -_SCALE_INTERVAL_S
    try:
        while scheduler.unfinished():
            now = time.monotonic()
            if now - census >= _SCALE_INTERVAL_S:
                census = now
                scheduler.scale_up(wanted())
                scheduler.check_heartbeats(now)
            if now - polled >= _TICK_S:
                polled = now
                scheduler.leave_draining()
            scheduler.step()
    finally:
        for worker in scheduler.workers:
            ray.kill(worker.actor)


class _Scheduler:
    def __init__(
        self,
        start_actor: Callable[[], Any],
        queue: deque[int],
        size_of: Callable[[int], int],
        report: Callable[[ShardResult, FleetStatus], None],
        stall_timeout: float,
        draining: Callable[[], Collection[str]],
    ) -> None:
        self.workers: set[_Worker] = set()
        self._start_actor, self._queue, self._size_of = start_actor, queue, size_of
        self._report, self._stall_timeout = report, stall_timeout
        self._draining, self._left = draining, set[str]()  # nodes that were ever draining
        self._preemptions = 0
        self._owners: dict[Any, _Worker] = {}  # of every pending result
        self._deaths: Counter[int | None] = Counter()
        self._searches: dict[int, _Search] = {}
        self._attended = time.monotonic()  # when an actor that had started was last there

    def unfinished(self) -> bool:
        working = (shard for worker in self.workers for shard in worker.tasks.values())
        return bool(self._queue) or any(shard is not None for shard in working)

    def scale_up(self, wanted: int) -> None:
        """Starts actors until there are as many as wanted and of use."""
        busy = sum(None not in worker.tasks.values() for worker in self.workers)
        useful = min(wanted, busy + len(self._queue))
        while len(self.workers) < useful:
            worker = _Worker(self._start_actor())
            self.workers.add(worker)
            self._track(worker, worker.actor.load.remote(), None)

    def check_heartbeats(self, now: float) -> None:
        """Asks everybody for a sign of life and dismisses who has not moved for too long."""
        for worker in [*self.workers]:
            if worker.alive_at and now - worker.alive_at > self._stall_timeout:
                self._handle_failure(worker, f"no progress within {self._stall_timeout:g} s")
            elif worker.heartbeat is None:
                worker.heartbeat = worker.actor.heartbeat.remote()
                self._owners[worker.heartbeat] = worker

    def leave_draining(self) -> None:
        """Requeues the shards of actors whose nodes are about to be taken away, and ends them.

        A shard in progress is not waited for: it takes longer than the notice, as a rule.
        """
        self._left.update(self._draining())
        for worker in [*self.workers]:
            if worker.nodes & self._left:
                self._handle_failure(worker, "its node is draining", preempted=True)

    def step(self) -> None:
        """Waits for results, at most a second, and deals with all there are."""
        pending = list(self._owners)
        if not pending:  # nobody is there, and nobody is wanted yet
            time.sleep(_TICK_S)
        elif ray.wait(pending, timeout=_TICK_S)[0]:
            for ref in ray.wait(pending, num_returns=len(pending), timeout=0)[0]:
                if worker := self._owners.pop(ref, None):
                    self._handle_result(worker, ref)
        self._publish(ShardResult())

    def _handle_result(self, worker: _Worker, ref: Any) -> None:
        try:
            result = ray.get(ref)
        except RayError as error:
            raised = error.cause if isinstance(error, RayTaskError) else error
            if not isinstance(raised, RayError | WorkerLostError):
                raise raised from error
            # The node may have begun to drain a moment ago; `preempted` is true of some ends alone.
            self._left.update(self._draining())
            preempted = bool(worker.nodes & self._left) or getattr(raised, "preempted", False)
            self._handle_failure(worker, str(raised), preempted=preempted)
            return
        if ref is worker.heartbeat:
            worker.heartbeat = None
            if worker.alive_at is None or result.moved != worker.moved:
                worker.alive_at = time.monotonic()
            worker.answered, worker.moved, worker.nodes = result
            return
        worker.alive_at = time.monotonic()
        shard = worker.tasks.pop(ref)
        if shard is None:
            worker.loaded = True
            self._deaths[None] = 0
            self._publish(ShardResult(notes=result or ()))
        elif (search := self._searches.get(shard)) and result is None:
            search.at, search.deaths = search.at + 1, 0
            self._try_next(worker, shard, search)
        else:
            worker.committed += result.inputs
            worker.answered = max(worker.answered, worker.committed)
            self._publish(result)
        self._assign(worker)

    def _assign(self, worker: _Worker) -> None:
        while self._queue and len(worker.tasks) < _AT_ONCE:
            search = self._searches.get(self._queue[0])
            # A shard under suspicion has its actor for itself, so that no other is blamed; and
            # the last shards are spread: nobody hoards while another has none.
            alone = search or any(shard in self._searches for shard in worker.tasks.values())
            if worker.tasks and (alone or len(self._queue) < len(self.workers)):
                break
            shard = self._queue.popleft()
            if search:
                self._try_next(worker, shard, search)
            else:
                self._track(worker, worker.actor.process.remote(shard), shard)
        if not worker.tasks and not self._queue:
            self._remove(worker)

    def _try_next(self, worker: _Worker, shard: int, search: _Search) -> None:
        while search.at in search.quarantined:
            search.at += 1
        if search.at < search.inputs:
            self._track(worker, worker.actor.probe.remote(shard, search.at), shard)
        else:
            self._track(worker, worker.actor.process.remote(shard, search.quarantined), shard)

    def _track(self, worker: _Worker, ref: Any, shard: int | None) -> None:
        worker.tasks[ref] = shard
        self._owners[ref] = worker

    def _handle_failure(self, worker: _Worker, why: str, preempted: bool = False) -> None:
        self._remove(worker)
        self._preemptions += preempted
        for shard in worker.tasks.values():
            if not preempted:
                self._record_failure(shard, why)
            if shard is not None:
                self._queue.appendleft(shard)

    def _remove(self, worker: _Worker) -> None:
        self.workers.discard(worker)
        self._owners = {ref: owner for ref, owner in self._owners.items() if owner is not worker}
        ray.kill(worker.actor)

    def _record_failure(self, shard: int | None, why: str) -> None:
        search = self._searches.get(shard) if shard is not None else None
        if shard is not None and search and search.at < search.inputs:
            search.deaths += 1
            if search.deaths == MAX_DEATHS:
                reason = " ".join(why.split())[:300]
                search.quarantined[search.at] = f"kills the worker: {reason}"
                search.deaths = 0
                self._deaths[shard] = 0
            return
        self._deaths[shard] += 1
        if shard is not None and not search and self._deaths[shard] >= SUSPICIOUS:
            self._searches[shard] = _Search(self._size_of(shard))
            self._deaths[shard] = 0
        elif self._deaths[shard] >= MAX_DEATHS:
            what = "loading" if shard is None else f"at shard {shard}"
            raise RuntimeError(f"{MAX_DEATHS} workers in a row died {what}; the last: {why}")

    def _publish(self, done: ShardResult) -> None:
        loaded = [worker for worker in self.workers if worker.loaded]
        in_flight = sum(worker.answered - worker.committed for worker in loaded)
        starting = sum(worker.alive_at is None for worker in self.workers)
        now = time.monotonic()
        if starting < len(self.workers):
            self._attended = now
        waiting_s = now - self._attended
        fleet = FleetStatus(
            len(loaded), in_flight, starting, waiting_s, self._preemptions, len(self._queue)
        )
        self._report(done, fleet)
