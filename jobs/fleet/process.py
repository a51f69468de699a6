"""`ShardProcess`: the process of an actor, made ready for JAX before JAX is imported."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import ray

from paliflow.configs.base import SpecError
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult, ShardWorker
from paliflow.jobs.fleet.tpu_environment import tpu_environment


class ShardProcess:
    """Sets the environment that its chips need, then imports a `ShardWorker` and is that."""

    def __init__(self, worker: str, chips: float, *arguments: Any) -> None:
        """
        Args:
            worker: a class of workers, as `module:name`, that is not imported yet.
            chips: TPU chips that this actor holds.
            arguments: of the class.
        """
        self._nodes = frozenset({ray.get_runtime_context().get_node_id()})
        self._worker: ShardWorker | None = None
        self._refusal: SpecError | None = None
        if chips:
            try:
                set_environment(chips)
            except SpecError as error:  # raised by `load`: an actor that cannot start says nothing
                self._refusal = error
                return
        self._worker = named(worker)(*arguments)

    def load(self) -> tuple[tuple[str, str], ...]:
        """As the worker's.

        Raises:
            SpecError: as the worker's, or its chips cannot be had like that.
        """
        if self._refusal:
            raise self._refusal
        return self._ready().load()

    def heartbeat(self) -> Heartbeat:
        """As the worker's, with the node."""
        beat = self._worker.heartbeat() if self._worker else Heartbeat(0, 0)
        return beat._replace(nodes=self._nodes)

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        """As the worker's."""
        return self._ready().process(shard, quarantined)

    def probe(self, shard: int, place: int) -> None:
        """As the worker's."""
        self._ready().probe(shard, place)

    def _ready(self) -> ShardWorker:
        assert self._worker
        return self._worker


def named(worker: str) -> Any:
    """Imports what is named as `module:name`."""
    module, _, name = worker.partition(":")
    return getattr(import_module(module), name)


def set_environment(chips: float) -> None:
    """Sets what this process needs to compute alone on its TPU chips, before it imports JAX.

    Args:
        chips: that it holds of its Ray node.

    Raises:
        SpecError: nobody knows how to have such a part of a host.
    """
    here = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here)
    there = max(chips, node["Resources"].get("TPU", 0.0))
    os.environ.update(tpu_environment(node["Labels"], chips, there, os.environ))
