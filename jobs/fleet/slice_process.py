"""`SliceProcess`: an actor that speaks for its processes, one on each host of a TPU slice.

The scheduler knows of one actor. Its first process takes shards as any other actor; what it asks of
the model, it has the others ask too. They live and die together: when one is gone, what the actor
is asked raises `WorkerLostError`, and the scheduler ends it. The processes are the actor's own, so
that Ray ends them with it, however it ends.
"""

import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from paliflow.configs.tpus import SLICE_LABEL, WORKER_LABEL, Slice
from paliflow.jobs.fleet.cluster import whole_slices
from paliflow.jobs.fleet.process import named
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult, WorkerLostError

_TURN_S = 30.0
"""How long hosts of a slice are awaited; then another slice may have all of its."""
_TICK_S = 1.0
_HEARTBEAT_S = 30
"""After so long JAX ends the processes of which one is silent."""
_JOIN_S = 120
"""How long the processes wait for each other."""


class _Seat(NamedTuple):
    slice: str
    node: str
    address: str
    """A free port of its host."""


class SliceMember:
    """A process on one host of the slice."""

    def __init__(self) -> None:
        self._worker: Any = None

    def seat(self) -> _Seat:
        """Says where this process is, at a port that is free now and was no other's."""
        context = ray.get_runtime_context()
        name = str(context.get_node_labels()[SLICE_LABEL])
        with socket.socket() as taken:
            taken.bind(("", 0))
            port = taken.getsockname()[1]
        return _Seat(name, context.get_node_id(), f"{ray.util.get_node_ip_address()}:{port}")

    def start(self, seats: Sequence[_Seat], rank: int, worker: str, *arguments: Any) -> Any:
        """Joins the others, then imports a worker, or its follower, and has it load.

        Args:
            seats: of all processes, by rank.
            rank: of this one.
            worker: a class of workers, as `module:name`, that is not imported yet.
            arguments: of the class.

        Raises:
            WorkerLostError: the others do not come.
            SpecError: as the worker's.
        """
        return self._unless_broken(lambda: self._started(seats, rank, worker, *arguments))

    def _started(self, seats: Sequence[_Seat], rank: int, worker: str, *arguments: Any) -> Any:
        import jax

        # JAX would have SIGTERM not end a process that has joined others.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            seats[0].address,
            len(seats),
            rank,
            heartbeat_timeout_seconds=_HEARTBEAT_S,
            initialization_timeout=_JOIN_S,
        )
        kind = named(worker)
        self._worker = kind(*arguments) if rank == 0 else named(kind.FOLLOWER)(*arguments)
        return self._worker.load()

    def repeat(self, arguments: tuple[Any, ...]) -> None:
        """Has the follower do as the first process does, in its order.

        An error here would leave the others waiting in a collective: it ends the process.
        """
        try:
            self._worker.repeat(*arguments)
        except Exception:
            traceback.print_exc()
            os._exit(1)

    @ray.method(concurrency_group="work")
    def heartbeat(self) -> Heartbeat:
        """As the worker's."""
        beat: Heartbeat = self._worker.heartbeat() if self._worker else Heartbeat(0, 0)
        return beat

    @ray.method(concurrency_group="work")
    def process(self, shard: int, quarantined: Mapping[int, str] | None) -> ShardResult:
        """As the worker's."""
        done: ShardResult = self._unless_broken(lambda: self._worker.process(shard, quarantined))
        return done

    @ray.method(concurrency_group="work")
    def probe(self, shard: int, place: int) -> None:
        """As the worker's."""
        self._unless_broken(lambda: self._worker.probe(shard, place))

    @ray.method(concurrency_group="watch")
    def stay(self) -> None:
        """Never returns: whoever waits for it learns of this process's end."""
        Event().wait()

    def _unless_broken(self, work: Callable[[], Any]) -> Any:
        """
        Raises:
            WorkerLostError: the devices failed, as they do where another process is gone.
            JaxRuntimeError: their memory ran out, as it would again.
        """
        from jax.errors import JaxRuntimeError

        from paliflow.jobs.fleet.accelerators import out_of_memory

        try:
            return work()
        except JaxRuntimeError as error:
            if out_of_memory(error):
                raise
            raise WorkerLostError(f"the slice's devices failed: {error}") from None


class SliceProcess:
    """An actor as `ShardProcess`, whose worker's model spans the hosts of a slice."""

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
        kind = type(worker.rpartition(":")[2], (SliceMember,), {})
        options: dict[str, Any] = {
            "num_cpus": cpus,
            "resources": {"TPU": slice_.chips_per_host},
            "max_restarts": 0,
            # Besides shards and heartbeats, whatever comes is done in the order that it comes.
            "concurrency_groups": {"work": 4, "watch": 1},
        }
        self._members, self._seats = _placed(ray.remote(**options)(kind), slice_, labels)
        here = ray.get_runtime_context().get_node_id()
        self._nodes = frozenset({here, *(seat.node for seat in self._seats)})
        self._stays = [member.stay.remote() for member in self._members]

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
        return notes

    def heartbeat(self) -> Heartbeat:
        """As the first process's, with the nodes of all."""
        beat: Heartbeat
        (beat,) = self._results([self._members[0].heartbeat.remote()])
        return beat._replace(nodes=self._nodes)

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        """As the first process's."""
        done: ShardResult
        (done,) = self._results([self._members[0].process.remote(shard, quarantined)])
        return done

    def probe(self, shard: int, place: int) -> None:
        """As the first process's."""
        self._results([self._members[0].probe.remote(shard, place)])

    def _results(self, refs: list[Any]) -> list[Any]:
        """Waits for results, or for the end of any process.

        Raises:
            WorkerLostError: a process is gone.
            Exception: what a process raised.
        """
        pending = [*refs]
        while pending:
            (done, *_), _ = ray.wait([*pending, *self._stays], num_returns=1)
            try:
                ray.get(done)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                raise WorkerLostError(f"a process of the slice ended: {error}") from None
            pending.remove(done)
        return ray.get(refs)


def _placed(remote: Any, slice_: Slice, labels: Mapping[str, str]) -> tuple[list[Any], list[_Seat]]:
    """Waits for a slice all of whose hosts are free, and starts a process on each, by rank.

    A placement group would stay where the actor that made it is killed. Whoever has a slice's first
    host has the others next, so that two that wait do not hold what each other needs.
    """

    def start(rank: int, name: str) -> Any:
        where = {**labels, SLICE_LABEL: name, WORKER_LABEL: str(rank)}
        return remote.options(label_selector=where).remote()

    while True:
        members, seats = [], list[_Seat]()
        if whole := whole_slices(slice_, labels):
            members.append(start(0, f"in({','.join(whole)})"))
            if seats := _seated(members):
                members += [start(rank, seats[0].slice) for rank in range(1, slice_.hosts)]
                if seats := _seated(members):
                    return members, seats
        else:
            time.sleep(_TICK_S)
        for member in members:  # another slice may have all of its hosts by now
            ray.kill(member)


def _seated(members: list[Any]) -> list[_Seat]:
    """Where processes are; none if not all of them start in time."""
    refs = [member.seat.remote() for member in members]
    done, _ = ray.wait(refs, num_returns=len(refs), timeout=_TURN_S)
    return ray.get(refs) if len(done) == len(refs) else []
