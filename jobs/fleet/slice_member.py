"""`SliceMember`: a process on one host of a TPU slice, which others on its other hosts join."""

import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any

import ray

from paliflow.configs.tpus import SLICE_LABEL
from paliflow.jobs.fleet.process import named
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult, WorkerLostError
from paliflow.jobs.fleet.slice_process import Seat

_HEARTBEAT_S = 30
"""After so long JAX ends the processes of which one is silent."""
_JOIN_S = 120
"""How long the processes wait for each other."""


class SliceMember:
    """A process on one host of the slice."""

    def __init__(self) -> None:
        self._worker: Any = None

    def seat(self) -> Seat:
        """Says where this process is, at a port that is free now and was no other's."""
        context = ray.get_runtime_context()
        name = str(context.get_node_labels()[SLICE_LABEL])
        with socket.socket() as taken:
            taken.bind(("", 0))
            port = taken.getsockname()[1]
        return Seat(name, context.get_node_id(), f"{ray.util.get_node_ip_address()}:{port}")

    def start(self, seats: Sequence[Seat], rank: int, worker: str, *arguments: Any) -> Any:
        """Joins the others, then imports a worker, or its follower, and has it load.

        Args:
            seats: of all processes, by rank.
            rank: of this one.
            worker: a class of workers, as `module:name`, that is not imported yet.
            arguments: of the class.

        Raises:
            WorkerLostError: the others do not come, or the port has been taken meanwhile.
            SpecError: as the worker's.
        """
        return self._unless_broken(lambda: self._started(seats, rank, worker, *arguments))

    def _started(self, seats: Sequence[Seat], rank: int, worker: str, *arguments: Any) -> Any:
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
