"""The Ray cluster: joined if there is one, started inside this process if not."""

import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray._private.state import state

from paliflow.configs.base import ClusterError, SpecError
from paliflow.configs.run import FleetSpec
from paliflow.configs.tpus import SLICE_LABEL, WORKER_LABEL, Slice

_CONCURRENCY = 4
"""Calls that run at once on an actor: two shards, a sign of life, and one to spare."""
_CORES_OF_A_CPU_ACTOR = 2.0
"""XLA spreads one batch over all cores, so a second model on the same few gains nothing."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Joins the cluster at `address` or, inside a Ray job, the job's; else starts one here.

    Where this process is connected already, it stays so.

    Raises:
        ClusterError: nothing answers at `address`, or Ray does not start here.
        SpecError: the folder for Ray's sockets has too long a path.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    local: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
    host, _, port = where.rpartition("://")[2].rpartition(":")
    try:
        if port.isdigit():  # Ray itself tries for many minutes before it gives up
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(where, **quiet, **local)
    except Exception as error:  # a start that takes Ray too long is a plain Exception
        ray.shutdown()  # of what has started
        if "AF_UNIX" in str(error):
            name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
            raise SpecError(
                f"{name}={os.environ.get(name)!r}: too long a path for Ray's sockets; set "
                "RAY_TMPDIR to a short one, e.g. /tmp"
            ) from None
        if where == "local":
            said = (
                f"Ray does not start on this machine: {error} What it tried is in its folder's logs"
            )
        else:
            said = f"ray_address={where!r}: no Ray cluster answers there: {error}"
        raise ClusterError(said) from error
    try:
        yield
    finally:
        ray.shutdown()


def actor_options(resources: Mapping[str, float], labels: Mapping[str, str]) -> dict[str, Any]:
    """Ray's options for one actor that takes these resources of a node with these labels."""
    named = {"CPU": "num_cpus", "GPU": "num_gpus"}
    return {
        **{option: resources.get(name, 0) for name, option in named.items()},
        "resources": {name: n for name, n in resources.items() if name not in named},
        "label_selector": dict(labels),
        "max_concurrency": _CONCURRENCY,
        "max_restarts": 0,  # the driver replaces the dead, because it knows which shard they held
    }


def target_actor_count(spec: FleetSpec) -> int:
    """How many actors there should be: as many as fit into the cluster as it is now."""
    if spec.actors:
        return spec.actors
    if spec.actor_slice:
        return len(whole_slices(spec.actor_slice, spec.actor_labels))
    fitting = places(spec.actor_resources, spec.actor_labels)
    if fitting and _on_cpus(spec.actor_resources):
        cores = ray.cluster_resources()["CPU"]
        return max(1, min(fitting, int(cores // _CORES_OF_A_CPU_ACTOR)))
    return fitting


def draining_nodes() -> frozenset[str]:
    """The ids of the nodes that are about to be taken away.

    Ray tells this by a private function alone; it is in 2.60 and newer.
    """
    return frozenset(state.get_draining_nodes())


def places(wanted: Mapping[str, float], labels: Mapping[str, str] | None = None) -> int:
    """How many processes that take these resources fit into the cluster's nodes, all being free.

    A process is on one node: two nodes of 4 TPUs have no place for one that takes 8.

    Args:
        wanted: Ray resources of one process.
        labels: what its node has to be labelled with.
    """
    return sum(
        min(
            int(_units(node["Resources"].get(name, 0)) // _units(amount))
            for name, amount in wanted.items()
        )
        for node in _nodes(labels)
    )


def whole_slices(slice_: Slice, labels: Mapping[str, str]) -> list[str]:
    """The slices that have all their hosts, busy or not, none of them about to be taken away.

    Args:
        slice_: its generation, topology and hosts.
        labels: of its nodes.
    """
    there = {
        (node["Labels"].get(SLICE_LABEL), node["Labels"].get(WORKER_LABEL))
        for node in _nodes(labels)
        if node["Resources"].get("TPU", 0) >= slice_.chips_per_host
    }
    hosts = Counter(name for name, number in there if name and number)
    return sorted(name for name, count in hosts.items() if count >= slice_.hosts)


def described(
    wanted: Mapping[str, float], labels: Mapping[str, str] | None = None, hosts: int = 1
) -> str:
    """What one actor takes, what the nodes have, and what of that is free.

    Args:
        wanted: Ray resources of one process.
        labels: what its node has to be labelled with.
        hosts: of one slice, on each of which the actor has a process.
    """
    labelled = "".join(f", labelled {name}={value}" for name, value in (labels or {}).items())
    kinds = Counter(
        _said({name: node["Resources"].get(name, 0) for name in wanted}) for node in _nodes()
    )
    nodes = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common()) or "none"
    where = "one node" if hosts == 1 else f"each of the {hosts} hosts of one slice"
    free = ray.available_resources()
    of_all = _said({name: free.get(name, 0) for name in wanted})
    return (
        f"each takes {_said(wanted)} of {where}{labelled}; nodes: {nodes}; free in all of them: "
        f"{of_all}"
    )


def _on_cpus(resources: Mapping[str, float]) -> bool:
    return resources.keys() == {"CPU"}


def _nodes(labels: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    draining = draining_nodes()
    return [
        node
        for node in ray.nodes()
        if node["Alive"]
        and node.get("NodeID") not in draining
        and (labels or {}).items() <= node.get("Labels", {}).items()
    ]


def _units(amount: float) -> int:
    """In ten thousandths, as Ray counts: 0.1 is in 1.0 ten times."""
    return round(amount * 10_000)


def _said(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())


def core_share(spec: FleetSpec) -> int:
    """Cores of this host that one actor may use: its share of the cluster's, if it is in one."""
    cores = os.cpu_count() or 1
    if not ray.is_initialized():
        return cores
    share = max(
        1,
        spec.cpus_per_actor,
        ray.cluster_resources().get("CPU", 0) // max(1, target_actor_count(spec)),
    )
    return min(int(share), cores)


def share_cores(spec: FleetSpec) -> None:
    """Has XLA on a CPU start threads for an actor's share of the cores, not for all of a host's.

    Call it in an actor before JAX looks for devices. `PJRT_NPROC` in the environment has its way.
    """
    if ray.is_initialized() and _on_cpus(spec.actor_resources):
        os.environ.setdefault("PJRT_NPROC", str(core_share(spec)))


def require_room(spec: FleetSpec) -> None:
    """
    Raises:
        ClusterError: not even one actor fits into the cluster as it is, and none is asked for
            by number.
    """
    if not target_actor_count(spec):
        takes = _taken(spec)
        raise ClusterError(
            "accelerators_per_actor, cpus_per_actor: no actor fits into the cluster: "
            f"{takes}; ask for less, or set `actors` to wait until it grows"
        )


def awaited(spec: FleetSpec) -> str:
    """What is awaited while no actor has started."""
    return f"actors do not start: {_taken(spec)}"


def _taken(spec: FleetSpec) -> str:
    hosts = spec.actor_slice.hosts if spec.actor_slice else 1
    return described(spec.actor_resources, spec.actor_labels, hosts)


def require_start(spec: FleetSpec, waiting_s: float) -> None:
    """
    Raises:
        ClusterError: no actor has been there for longer than `start_timeout`.
    """
    if waiting_s > spec.start_timeout:
        raise ClusterError(
            f"start_timeout={spec.start_timeout:g}: for so many seconds {awaited(spec)}"
        )
