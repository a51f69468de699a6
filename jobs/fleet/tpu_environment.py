"""What libtpu has to find in a process's environment before JAX is imported.

GKE describes a whole slice to each of its pods. A process that takes less of it than that waits in
its first `jax.devices()` for the others for ever, unless it is told otherwise. Ray limits a process
to its chips and says nothing of the slice. The names are libtpu's; `*_PROCESS_BOUNDS` is the newer
one of `*_HOST_BOUNDS`, and both are set because releases differ in which they read.
"""

from collections.abc import Mapping
from math import prod

from paliflow.configs.base import SpecError
from paliflow.configs.placement import unsupported_share
from paliflow.configs.tpus import TOPOLOGY_LABEL, host_topology, sides

_PORT = 8471
"""libtpu's, of a process's address."""


def tpu_environment(
    labels: Mapping[str, str], asked: float, there: float, given: Mapping[str, str]
) -> dict[str, str]:
    """The variables to set for a process that computes alone on its chips.

    Args:
        labels: of its Ray node.
        asked: chips that the process holds.
        there: chips of the node.
        given: the environment so far, with the TPU_VISIBLE_CHIPS that Ray chose.

    Raises:
        SpecError: nobody knows how to have such a part of a host.
    """
    if not asked:
        return {}
    topology = labels.get(TOPOLOGY_LABEL)
    hosts = max(1, int(prod(sides(topology)) // there)) if topology else 1
    if reason := unsupported_share(int(asked), int(there), hosts):
        raise SpecError(
            f"accelerators_per_actor={{'TPU': {asked:g}}} on a host with {there:g} chips of a "
            f"slice of topology={topology!r}: {reason}"
        )
    if topology is None or hosts == 1:
        return {}
    alone = {
        **_bounds("PROCESS", "HOST", "1,1,1"),
        "TPU_WORKER_ID": "0",
        "CLOUD_TPU_TASK_ID": "0",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_SKIP_MDS_QUERY": "1",
    }
    if "TPU_PROCESS_ADDRESSES" in given:
        alone["TPU_PROCESS_ADDRESSES"] = f"localhost:{_PORT}"
    if asked < there:
        return {**alone, **_bounds("CHIPS_PER_PROCESS", "CHIPS_PER_HOST", "1,1,1")}
    return {
        **alone,
        **_bounds("CHIPS_PER_PROCESS", "CHIPS_PER_HOST", "2,2,1"),
        "TPU_VISIBLE_CHIPS": "0,1,2,3",
        "TPU_TOPOLOGY": host_topology(topology),
        "TPU_TOPOLOGY_WRAP": "false,false,false",
    }


def _bounds(newer: str, older: str, bounds: str) -> dict[str, str]:
    return {f"TPU_{newer}_BOUNDS": bounds, f"TPU_{older}_BOUNDS": bounds}
