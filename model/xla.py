"""What is asked of XLA on each platform, where programs that compute the same differ in speed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from jax.sharding import Mesh

from paliflow.model.slices import CPU_TOKENS, TOKENS

_GPU_TOKENS = 8 * TOKENS
_TOKEN_BYTES = 160 * 2**10
"""What is transient of a token: two hidden activations of 16,384 in float32, and the rest."""


@dataclass(frozen=True)
class Backend:
    """The choices made for a platform; the defaults hold wherever nothing else was measured."""

    attention: Literal["cudnn", "xla"] | None = None
    """Which of `jax.nn.dot_product_attention` computes attention where it can: of bfloat16, for
    more than one query, without softcap. None for blocks of queries, as everywhere else."""
    narrow_products: bool = False
    """Whether XLA is asked for products of bfloat16 in bfloat16, which a GPU accumulates in
    float32 and rounds once. Asked for in float32, they are converted by a kernel of its own."""
    slice_tokens: int = TOKENS
    """Of a slice of a batch, at most: see `slices`."""


ANY = Backend()


def backend_of(kind: str, memory: float, devices: int = 1) -> Backend:
    """The choices for a kind of device, as measured: see docs/performance.md.

    Args:
        kind: as JAX names it, e.g. `cpu` or `NVIDIA H100 80GB HBM3`, or `configs/chips.yaml`.
        memory: bytes of each device that a program can use.
        devices: of one program; nothing was measured with several GPUs.
    """
    if kind == "cpu":
        return Backend(slice_tokens=CPU_TOKENS)
    if devices > 1 or not re.search(r"\bH[12]00\b", kind):
        return ANY
    # At most a sixteenth of the memory is of a slice, which is all of _GPU_TOKENS from 50 GiB on.
    tokens = min(_GPU_TOKENS, max(TOKENS, int(memory / 16 / _TOKEN_BYTES)))
    return Backend("cudnn", narrow_products=True, slice_tokens=tokens)


def backend_of_mesh(mesh: Mesh) -> Backend:
    """The choices for the devices of a mesh, which are of one kind and this process's own."""
    device = mesh.devices.flat[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    return backend_of(device.device_kind, memory, mesh.size)


_traced: ContextVar[Backend] = ContextVar("backend", default=ANY)


def traced_backend() -> Backend:
    """The backend that the program being traced is for."""
    return _traced.get()


@contextmanager
def tracing_for(backend: Backend) -> Iterator[None]:
    """Traces a program for a backend. A jitted function has to take it as a static argument."""
    token = _traced.set(backend)
    try:
        yield
    finally:
        _traced.reset(token)
