"""`SliceProcess`: an actor that speaks for its processes, one on each host of a TPU slice.

The scheduler knows of one actor. Its first process takes shards as any other actor; what it asks of
the model, it has the others ask too. They live and die together: when one is gone, what the actor
is asked raises `WorkerLostError`, and the scheduler ends it. The processes are the actor's own, so
that Ray ends them with it, however it ends.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from paliflow.configs.tpus import SLICE_LABEL, WORKER_LABEL, Slice
from paliflow.jobs.fleet.cluster import whole_slices
from paliflow.jobs.fleet.process import named
from paliflow.jobs.fleet.scheduler import MAX_DEATHS, Heartbeat, ShardResult, WorkerLostError

_TURN_S = 30.0
"""How long hosts of a slice are awaited; then another slice may have all of its."""
_TICK_S = 1.0


class Seat(NamedTuple):
    """Where a process of the slice is."""

    slice: str
    node: str
    address: str
    """A free port of its host."""


class SliceProcess:
    """An actor as `ShardProcess`, whose worker's model spans the hosts of a slice."""

    MEMBER = "paliflow.jobs.fleet.slice_member:SliceMember"
    """Imported by name: it is the process that needs JAX, and not whoever speaks for it."""
    SILENCE_S = 15.0
    """A process that answers nothing for so long has been stopped, or its host is out of reach."""

    def __init__(
        self,
        worker: str,
        slice_: Slice,
        labels: Mapping[str, str],
        cpus: float,
        *arguments: Any,
    ) -> None:
        """Takes a slice and starts a process on each host, however long that takes.

        Args:
            worker: a class of workers, as `module:name`. Its instances get, besides the arguments,
                a function that has the instances of its `FOLLOWER` called with `repeat`.
            slice_: the slice.
            labels: of its nodes.
            cpus: cores of each process.
            arguments: of the class, and of its follower.
        """
        self._worker, self._arguments = worker, arguments
        # Ray shows an actor under its class's name.
        kind = type(worker.rpartition(":")[2], (named(self.MEMBER),), {})
        options: dict[str, Any] = {
            "num_cpus": cpus,
            "resources": {"TPU": slice_.chips_per_host},
            "max_restarts": 0,
            # Besides shards and heartbeats, whatever comes is done in the order that it comes.
            "concurrency_groups": {"work": 4, "watch": 1},
        }
        self._members, self._seats = self._placed(ray.remote(**options)(kind), slice_, labels)
        here = ray.get_runtime_context().get_node_id()
        self._nodes = frozenset({here, *(seat.node for seat in self._seats)})
        self._stays = [member.stay.remote() for member in self._members]
        self._loaded = False

    def load(self) -> tuple[tuple[str, str], ...]:
        """Joins the processes, and has each load its piece of the model; returns the first's notes.

        Raises:
            WorkerLostError: one of them is gone.
            SpecError: as a worker's.
        """
        others = self._members[1:]

        def repeat(*arguments: Any) -> None:
            shared = ray.put(arguments)
            for other in others:
                other.repeat.remote(shared)

        starting = [
            member.start.remote(
                *(self._seats, rank, self._worker, *self._arguments),
                *([] if rank else [repeat]),
            )
            for rank, member in enumerate(self._members)
        ]
        notes: tuple[tuple[str, str], ...] = self._results(starting)[0]
        self._loaded = True
        return notes

    def heartbeat(self) -> Heartbeat:
        """As the first process's, with the nodes of all.

        JAX ends processes of which one is silent, but later. Python may be silent for long while it
        loads weights, and then JAX alone judges.

        Raises:
            WorkerLostError: a process is gone or silent.
        """
        beats = [member.heartbeat.remote() for member in self._members]
        beat: Heartbeat
        beat, *_ = self._results(beats, self.SILENCE_S if self._loaded else None)
        return beat._replace(nodes=self._nodes)

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        """As the first process's."""
        done: ShardResult
        (done,) = self._results([self._members[0].process.remote(shard, quarantined)])
        return done

    def probe(self, shard: int, place: int) -> None:
        """As the first process's."""
        self._results([self._members[0].probe.remote(shard, place)])

    def _results(self, refs: list[Any], timeout: float | None = None) -> list[Any]:
        """Waits for results, or for the end of any process.

        Raises:
            WorkerLostError: a process is gone, or has not answered within the timeout in seconds.
            Exception: what a process raised.
        """
        pending, deadline = [*refs], timeout and time.monotonic() + timeout
        while pending:
            left = deadline and max(0.0, deadline - time.monotonic())
            done, _ = ray.wait([*pending, *self._stays], num_returns=1, timeout=left)
            if not done:
                raise self._lost(f"a process of the slice is silent for {timeout:g} s")
            try:
                ray.get(done)
            except RayTaskError as error:
                if isinstance(error.cause, WorkerLostError):
                    raise self._lost(str(error.cause)) from None
                raise error.cause from None
            except RayError as error:
                raise self._lost(f"a process of the slice ended: {error}") from None
            pending.remove(done[0])
        return ray.get(refs)

    def _lost(self, why: str) -> WorkerLostError:
        """Ends all processes at once: one that is stopped would stay, and keep its chips."""
        for member in self._members:
            ray.kill(member)
        return WorkerLostError(why)

    def _placed(
        self, remote: Any, slice_: Slice, labels: Mapping[str, str]
    ) -> tuple[list[Any], list[Seat]]:
        """Waits for a slice all of whose hosts are free, and starts a process on each, by rank.

        A placement group would stay where the actor that made it is killed. Whoever has a slice's
        first host has the others next, so that two that wait do not hold what each other needs.

        Raises:
            RayActorError: processes die as they start, whichever slice they are on.
        """

        def start(rank: int, name: str) -> Any:
            where = {**labels, SLICE_LABEL: name, WORKER_LABEL: str(rank)}
            return remote.options(label_selector=where).remote()

        deaths = 0  # one after the other
        while True:
            members = list[Any]()
            try:
                if whole := whole_slices(slice_, labels):
                    members.append(start(0, f"in({','.join(whole)})"))
                    if seats := _seated(members):
                        members += [start(rank, seats[0].slice) for rank in range(1, slice_.hosts)]
                        if seats := _seated(members):
                            return members, seats
                deaths = 0
            except RayActorError:
                deaths += 1
                if deaths == MAX_DEATHS:
                    raise
            for member in members:  # another slice may have all of its hosts by now
                ray.kill(member)
            time.sleep(_TICK_S)


def _seated(members: list[Any]) -> list[Seat]:
    """Where processes are; none if not all of them start in time."""
    with suppress(GetTimeoutError):
        seats: list[Seat] = ray.get([member.seat.remote() for member in members], timeout=_TURN_S)
        return seats
    return []
