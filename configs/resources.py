"""Ray resources that an actor or a worker asks for: what no node can ever have is refused."""

from typing import Annotated

from pydantic import AfterValidator, PositiveFloat

_TPU_CHIPS = (1, 2, 4, 8)
"""Of one host that a process may have, as Ray and libtpu divide it."""
_ELSEWHERE = {
    "cpu": "CPUs are cpus_per_actor or cpus_per_worker",
    "memory": "memory cannot be asked for",
    "object_store_memory": "memory cannot be asked for",
}
_KINDS = {"tpu": "TPU", "gpu": "GPU"}


def _possible(resources: dict[str, float]) -> dict[str, float]:
    for name, amount in resources.items():
        kind = _KINDS.get(name.lower())
        if said := _ELSEWHERE.get(name.lower()):
            raise ValueError(f"{name}: {said}")
        if kind and name != kind:
            raise ValueError(f"Ray has no resource {name}, did you mean {kind}?")
        if kind == "TPU" and amount not in _TPU_CHIPS:
            raise ValueError(f"TPU={amount:g}: a process has 1, 2, 4 or 8 chips of its host")
        if amount > 1 and amount % 1:
            raise ValueError(f"{name}={amount:g}: above 1 only whole numbers")
    if {"TPU", "GPU"} <= resources.keys():
        raise ValueError("give TPU or GPU: a process computes on one of them")
    return resources


Accelerators = Annotated[dict[str, PositiveFloat], AfterValidator(_possible)]
"""Ray resources of one process, e.g. `{"TPU": 4}`, beside its CPUs."""
