"""`TpuType` and `Slice`: generations of TPUs, how their slices divide into hosts, their names."""

from math import prod
from typing import NamedTuple

from pydantic import PositiveInt

from paliflow.configs.base import Spec, SpecError

TOPOLOGY_LABEL = "ray.io/tpu-topology"
TYPE_LABEL = "ray.io/accelerator-type"
SLICE_LABEL = "ray.io/tpu-slice-name"
WORKER_LABEL = "ray.io/tpu-worker-id"
"""Ray's labels of a node, with the slice's topology, the TPUs' generation, the slice's name and the
host's number in it."""
_USUAL_HOST = 4
"""Chips of each host of a slice that has several hosts."""


class TpuType(Spec):
    """A generation of TPUs, as `chips.yaml` lists them."""

    name: str
    ray: str
    """Ray's accelerator type, the value of the node label `ray.io/accelerator-type`."""
    gke: str
    """GKE's accelerator, the value of the node label `cloud.google.com/gke-tpu-accelerator`."""
    machines: dict[PositiveInt, str]
    """GKE's machine types, by the chips of one host."""
    devices_per_chip: PositiveInt = 1
    """JAX devices that one chip is."""
    topologies: tuple[str, ...]
    """The slices that there are, by their sides in chips."""

    def slice(self, topology: str) -> "Slice":
        """The slice of this topology.

        Raises:
            SpecError: there is none.
        """
        if topology not in self.topologies:
            known = ", ".join(self.topologies)
            raise SpecError(f"topology={topology!r}: {self.name} has slices of {known}")
        return Slice(self, topology)


class Slice(NamedTuple):
    """Chips with a network of their own, spread over one host or several alike."""

    tpu: TpuType
    topology: str
    """Its sides in chips, e.g. `4x4`."""

    @property
    def chips(self) -> int:
        """Chips of all hosts."""
        return prod(sides(self.topology))

    @property
    def chips_per_host(self) -> int:
        """Chips of each host: a small slice is one host."""
        return self.chips if self.chips in self.tpu.machines else _USUAL_HOST

    @property
    def hosts(self) -> int:
        """How many hosts it has."""
        return self.chips // self.chips_per_host

    @property
    def host_topology(self) -> str:
        """The sides of one host's chips."""
        return self.topology if self.hosts == 1 else host_topology(self.topology)


def sides(topology: str) -> tuple[int, ...]:
    """The sides of a topology: (4, 4) of `4x4`."""
    return tuple(int(side) for side in topology.split("x"))


def host_topology(topology: str) -> str:
    """The sides of the four chips that a host has of a slice of several hosts."""
    return "2x2" if len(sides(topology)) == 2 else "2x2x1"
