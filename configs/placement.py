"""How actors are laid onto TPUs: which layouts there are, and why others are refused."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from paliflow.configs.base import SpecError
from paliflow.configs.chips import catalogue
from paliflow.configs.tpus import Slice

Placement = Literal["chip", "host", "slice"]


def slice_of(accelerator_type: str | None, topology: str | None) -> Slice | None:
    """The slice that a spec names; None if it names none.

    Raises:
        SpecError: it names half of one, or one that does not exist.
    """
    if accelerator_type is None and topology is None:
        return None
    if accelerator_type is None or topology is None:
        missing = "topology" if topology is None else "accelerator_type"
        raise SpecError(
            f"accelerator_type={accelerator_type!r}, topology={topology!r}: {missing} is missing; "
            "give both, e.g. v5e and 2x4"
        )
    return catalogue().tpu(accelerator_type).slice(topology)


def chips_of_actor(placement: Placement, slice_: Slice) -> int:
    """Chips that an actor has of each of its hosts."""
    return 1 if placement == "chip" else slice_.chips_per_host


def with_accelerators(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec, with the `accelerators_per_actor` that follow from its `placement`.

    What is wrong with these fields is for `check_placement` to say, once they are validated.
    """
    names = "placement", "accelerator_type", "topology"
    values: list[Any] = [data.get(name) for name in names]
    placement, kind, topology = values
    known = isinstance(kind, str) and isinstance(topology, str)
    if placement not in get_args(Placement) or not known or data.get("accelerators_per_actor"):
        return dict(data)
    try:
        slice_ = slice_of(kind, topology)
    except SpecError:
        return dict(data)
    assert slice_
    return {**data, "accelerators_per_actor": {"TPU": chips_of_actor(placement, slice_)}}


def check_placement(
    placement: Placement | None,
    accelerator_type: str | None,
    topology: str | None,
    accelerators: Mapping[str, float],
    model_parallel: int,
) -> None:
    """Compares what an actor asks for with what a host of such slices can give it.

    Args:
        placement: of the actors.
        accelerator_type: the generation of TPUs.
        topology: of the slices.
        accelerators: Ray resources of one actor.
        model_parallel: devices that share one copy of the weights.

    Raises:
        SpecError: there is no such slice, or no actor can have that on one of its hosts.
    """
    slice_ = slice_of(accelerator_type, topology)
    if placement and not slice_:
        raise SpecError(
            f"placement={placement!r} needs accelerator_type and topology, e.g. v5e and 2x4"
        )
    if not slice_:
        return
    chips = accelerators.get("TPU")
    if chips is None:
        raise SpecError(
            f"accelerator_type={accelerator_type!r}, topology={topology!r}: give placement, or "
            "accelerators_per_actor, e.g. {'TPU': 4}"
        )
    where = f"{slice_.tpu.name} of topology={topology!r}"
    if placement and chips != (due := chips_of_actor(placement, slice_)):
        raise SpecError(
            f"placement={placement!r} on {where} is accelerators_per_actor={{'TPU': {due}}}, not "
            f"{dict(accelerators)}; leave accelerators_per_actor out"
        )
    if reason := unsupported(slice_, int(chips)):
        raise SpecError(f"accelerators_per_actor={dict(accelerators)} on {where}: {reason}")
    spans = placement == "slice"
    devices = int(chips) * slice_.tpu.devices_per_chip * (slice_.hosts if spans else 1)
    if devices % model_parallel:
        wider = ", or placement='slice'" if slice_.hosts > 1 and not spans else ""
        raise SpecError(
            f"model_parallel={model_parallel}: an actor on {where} has {devices} devices; give a "
            f"number that divides them{wider}"
        )


def unsupported(slice_: Slice, chips: int) -> str | None:
    """Why a process cannot have so many chips of a host of the slice; None if it can."""
    there = slice_.chips_per_host
    if chips > there:
        return f"a host has {there} chips"
    if chips < there and slice_.tpu.devices_per_chip > 1:
        return "nobody has seen a process take a part of such a host; ask for all of its chips"
    return unsupported_share(chips, there, slice_.hosts)


def unsupported_share(chips: int, there: int, hosts: int) -> str | None:
    """Why a process cannot have a part of a host; None if it can.

    Args:
        chips: of the process.
        there: chips of the host.
        hosts: of the slice.
    """
    if (chips, there) == (4, 8):
        return (
            "which four of a host's eight chips libtpu takes as a mesh differs between sources, "
            "and nobody has tried it; ask for 1, 2 or 8"
        )
    if hosts > 1 and 1 < chips < there:
        return (
            f"nobody has seen a process take {chips} of the {there} chips of a host whose slice "
            f"has more hosts; ask for 1 or {there}"
        )
    if hosts > 1 and there != 4:
        return "nobody has seen a process alone on a host of eight chips whose slice has more"
    return None


def check_workers(
    workers: int,
    accelerator_type: str | None,
    topology: str | None,
    accelerators: Mapping[str, float],
) -> None:
    """Compares what the workers of a training ask for with slices: each is all of a host.

    Raises:
        SpecError: there is no such slice, or the workers are not all hosts of one or several.
    """
    slice_ = slice_of(accelerator_type, topology)
    if not slice_:
        if "TPU" in accelerators and workers > 1:
            raise SpecError(
                f"workers={workers} with accelerators_per_worker={dict(accelerators)} need "
                "accelerator_type and topology, e.g. v5e and 4x4: they have to be of one slice"
            )
        return
    where = f"{slice_.tpu.name} of topology={topology!r}"
    if accelerators.get("TPU") != slice_.chips_per_host:
        raise SpecError(
            f"accelerators_per_worker={dict(accelerators)}: a worker has a host for itself, which "
            f"is {{'TPU': {slice_.chips_per_host}}} on {where}"
        )
    if workers % slice_.hosts:
        raise SpecError(
            f"workers={workers}: {where} has {slice_.hosts} hosts, and a training takes all of "
            "them; give that number or a multiple of it"
        )
