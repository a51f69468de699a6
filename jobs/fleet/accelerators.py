"""Whether a process has the accelerators that it was to have: JAX falls back to the CPU quietly."""

import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from paliflow.configs.base import SpecError
from paliflow.configs.tpus import sides

_REMEDIES = {
    "TPU": "install paliflow[tpu] where the actors run, and let JAX_PLATFORMS there be unset or "
    "tpu,cpu",
    "GPU": "install jax[cuda12] or jax[cuda13] where the actors run, and let JAX_PLATFORMS be "
    "unset there or cuda,cpu",
}

_OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|out of memory", re.IGNORECASE)
"""In XLA's errors: the first where a program is sent off, the second where its result is due."""


def require_accelerators(field: str, wanted: Mapping[str, float]) -> None:
    """Compares what JAX finds in this process with the Ray resources that it holds.

    Args:
        field: of the spec, that asks for them.
        wanted: Ray resources; without a TPU or a GPU among them, anything will do.

    Raises:
        SpecError: JAX computes on something else, or on fewer or more of them.
    """
    kind = next((name for name in _REMEDIES if name in wanted), None)
    if kind is None:
        return
    count = ceil(wanted[kind])  # of a part of a GPU, JAX sees the GPU
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        raise SpecError(_refusal(field, wanted, f"JAX finds none: {error}", kind)) from None
    platform, found = devices[0].platform, chips(devices)
    if platform != kind.lower() or found != count:
        raise SpecError(_refusal(field, wanted, f"JAX finds {found} x {platform}", kind))


def chips(devices: Sequence[Any]) -> int:
    """How many chips JAX's devices are: one may be two devices, at the same coordinates."""
    return len({tuple(getattr(each, "coords", None) or [each.id]) for each in devices})


def out_of_memory(error: JaxRuntimeError) -> bool:
    """Whether a device's memory ran out: the same with less at a time may succeed."""
    return bool(_OUT_OF_MEMORY.search(str(error)))


def require_mesh(field: str, topology: str | None, processes: int = 1) -> None:
    """Compares the mesh that an actor's chips form with what it was to have for itself.

    Args:
        field: of the spec, that asks for the chips.
        topology: their sides, e.g. `2x2`; if None, any will do.
        processes: of the actor.

    Raises:
        SpecError: JAX has joined more or fewer processes, or the chips form another mesh.
    """
    if (joined := jax.process_count()) != processes:
        raise SpecError(
            f"{field}: JAX sees the chips of {joined} processes, where an actor is {processes}; "
            "TPU_PROCESS_BOUNDS and TPU_WORKER_HOSTNAMES in its environment are another program's"
        )
    devices = jax.devices() if processes > 1 else jax.local_devices()
    found = extent([getattr(each, "coords", None) for each in devices])
    if topology and found and _mesh(found) != _mesh(sides(topology)):
        shown = "x".join(map(str, found))
        raise SpecError(
            f"{field}: the actor's chips form a mesh of {shown}, and not of {topology}; "
            "check accelerator_type and topology against the nodes' labels"
        )


def extent(coordinates: Sequence[Sequence[int] | None]) -> tuple[int, ...] | None:
    """The sides of the box around chips; None where devices have no coordinates, as CPUs."""
    chips = [each for each in coordinates if each is not None]
    if not chips:
        return None
    return tuple(max(axis) - min(axis) + 1 for axis in zip(*chips, strict=True))


def _mesh(sides: Sequence[int]) -> list[int]:
    """The sides that make a difference: libtpu may lie a slice of 2x4 down as 4x2x1."""
    return sorted(side for side in sides if side > 1)


def _refusal(field: str, wanted: Mapping[str, float], found: str, kind: str) -> str:
    return f"{field}={dict(wanted)}: {found}; {_REMEDIES[kind]}"
