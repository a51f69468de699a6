"""Whether a process has the accelerators that it was to have: JAX falls back to the CPU quietly."""

from collections.abc import Mapping
from math import ceil

import jax

from paliflow.configs.base import SpecError

_REMEDIES = {
    "TPU": "install paliflow[tpu] where the actors run, and let JAX_PLATFORMS there be unset or "
    "tpu,cpu",
    "GPU": "install jax[cuda12] or jax[cuda13] where the actors run, and let JAX_PLATFORMS be "
    "unset there or cuda,cpu",
}


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
    platform = devices[0].platform
    # A chip may be two devices; both are at its coordinates.
    found = len({tuple(getattr(each, "coords", None) or [each.id]) for each in devices})
    if platform != kind.lower() or found != count:
        raise SpecError(_refusal(field, wanted, f"JAX finds {found} x {platform}", kind))


def _refusal(field: str, wanted: Mapping[str, float], found: str, kind: str) -> str:
    return f"{field}={dict(wanted)}: {found}; {_REMEDIES[kind]}"
