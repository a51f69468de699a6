"""What is asked of XLA on each platform: choices of speed, and workarounds for its backends.

Nothing here changes what is computed. Each function says which backend it is for and what that
does otherwise, as seen with jax 0.10 to 0.12.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike

from paliflow.model.shapes import Bool, Float, Float32, Int, Int8, Int32, Shaped

# Axes: B batch, T query position, S key position, N query head, K key-value head, H head_dim,
# O output and I input of a weight.

T = TypeVar("T")

TOKENS = 2560
"""Of a slice of a batch, at most, if nothing else was measured: eight images at 224 pixels. Weights
are read from memory in less time than so many tokens take to be multiplied with them."""
CPU_TOKENS = 640
"""On a CPU, where two images at 224 pixels suffice."""
_GPU_TOKENS = 8 * TOKENS
QUERIES = 256
"""About so many go through attention at a time, where there are more than twice as many: their
logits stay in a TPU's own memory."""
_MORE_QUERIES = 512
_TOKEN_BYTES = 160 * 2**10
"""What is transient of a token: two hidden activations of 16,384 in float32, and the rest."""
_SIMD = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
_UNSIGNED = "AVX512_ICL" in _SIMD
"""Whether the CPU has AVX512-VNNI (NumPy's group of an Ice Lake), which multiplies unsigned bytes
with signed ones: XLA's product of the two is 2.3 times as fast as that of signed ones there, and
without it slower than any."""
_OF_ROWS = (((1,), (1,)), ((), ()))
"""The axes that a product of two matrices of rows sums over."""


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
    queries: int = QUERIES
    """Of a block of attention, about: see `attention.attend`."""


ANY = Backend()


def backend_of(kind: str, memory: float, devices: int = 1) -> Backend:
    """The choices for a kind of device, as measured: see docs/performance.md.

    Args:
        kind: as JAX names it, e.g. `cpu` or `NVIDIA H100 80GB HBM3`, or `configs/chips.yaml`.
        memory: bytes of each device that a program can use.
        devices: of one program; nothing was measured with several GPUs.
    """
    if kind == "cpu":
        return Backend(slice_tokens=CPU_TOKENS, queries=_MORE_QUERIES)
    if devices > 1 or not re.search(r"\bH[12]00\b", kind):
        return ANY
    # At most a sixteenth of the memory is of a slice, which is all of _GPU_TOKENS from 50 GiB on.
    tokens = min(_GPU_TOKENS, max(TOKENS, int(memory / 16 / _TOKEN_BYTES)))
    return Backend("cudnn", narrow_products=True, slice_tokens=tokens, queries=_MORE_QUERIES)


def backend_of_mesh(mesh: Mesh) -> Backend:
    """The choices for the devices of a mesh, which are of one kind."""
    device = mesh.local_devices[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    return backend_of(device.device_kind, memory, mesh.size)


def training_backend(mesh: Mesh) -> Backend:
    """The choices for a training step on a mesh, which cuDNN's attention has not been tried in.

    With `narrow_products`, gradients are products of bfloat16 with bfloat16, too. Otherwise one of
    the two is float32, and a GPU multiplies both as such.
    """
    kind = mesh.devices.flat[0].device_kind
    return replace(backend_of(kind, 0, mesh.size), attention=None)


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


def tied(values: T) -> T:
    """A tree of arrays that XLA takes for new wherever this stands.

    Tied to what changes in a loop, an array is none of the loop's invariants: XLA's CPU backend
    would hold all of a bfloat16 one in float32 beside the loop. Between two layers, it keeps a
    TPU's compiler from mixing them, and from holding what it makes of all of them at once: in
    int8, gigabytes.
    """
    barred: T = jax.lax.optimization_barrier(values)
    return barred


def fused_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "B #T S"] | None,
    softcap: float | None,
) -> Float[Array, "B T N H"] | None:
    """As `attention.attend`, by a kernel; None where the traced backend has none for it."""
    fused = traced_backend().attention
    if not fused or query.dtype != jnp.bfloat16 or query.shape[1] == 1 or softcap is not None:
        return None
    lengths = None
    if mask is not None and mask.shape[1] == 1:
        # A kernel that is told lengths takes half the time of one that reads a mask, or less.
        lengths = mask[:, 0].sum(-1, dtype=jnp.int32)
        mask = None
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=None if mask is None else mask[:, None],
        key_value_seq_lengths=lengths,
        scale=1.0,
        implementation=fused,
    )


def attention_product(
    equation: str, x: Float[Array, "..."], y: Float[Array, "..."]
) -> Float32[Array, "..."]:
    """Accumulated in float32, the operands in y's dtype, as the reference rounds its weights.

    XLA's CPU backend has no batched product of bfloat16 with a float32 result.
    """

    def wide(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        return jnp.einsum(equation, x, y, precision="highest")

    def narrow(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.einsum(equation, x.astype(y.dtype), y, preferred_element_type=jnp.float32)

    if y.dtype == jnp.float32:
        return wide(x, y)
    product: jax.Array = jax.lax.platform_dependent(x, y, cpu=wide, default=narrow)
    return product


def weight_product(
    equation: str, x: Float[Array, "..."], weight: Float[Array, "..."], dtype: DTypeLike | None
) -> Float[Array, "..."]:
    """As `layers.einsum`, of a plain array.

    The axes that x and the result begin with become one, since the gradient of a weight that
    sums over two axes takes XLA's CPU backend twice as long. `jnp.einsum` sums over axes in the
    order of their letters: with h after N it is that of memory, and nothing is transposed.
    """
    left, right = equation.replace("H", "h").split(",")
    axes, result = right.split("->")
    rows = len(commonprefix([left, result]))
    product = jnp.einsum(
        f"{left[0]}{left[rows:]},{axes}->{left[0]}{result[rows:]}",
        x.reshape(-1, *x.shape[rows:]),
        weight.astype(x.dtype),
        precision=_precision(x.dtype),
        preferred_element_type=_product_dtype(dtype or x.dtype),
    )
    return product.reshape(*x.shape[:rows], *product.shape[1:]).astype(dtype or x.dtype)


def rows_product(
    x: Float[Array, "B I"], rows: Float[Array, "O I"], dtype: DTypeLike
) -> Float[Array, "B O"]:
    """x times the transpose of `rows`, in x's dtype, on its way to `dtype`.

    One plain product of two matrices: of any other, inside a loop, XLA's CPU backend makes a
    transposed copy of the weight.
    """
    product: jax.Array = jax.lax.dot_general(
        x,
        rows.astype(x.dtype),
        _OF_ROWS,
        precision=_precision(x.dtype),
        preferred_element_type=_product_dtype(dtype),
    )
    return product


def padded_row(x: Float[Array, "B I"]) -> Float[Array, "b I"]:
    """Two rows of a single one, others as they are.

    XLA's CPU backend makes the weight float32 that a single row meets: 10 GB of a 3B model.
    """
    return jnp.pad(x, ((0, 1), (0, 0))) if x.shape[0] == 1 else x


def _precision(dtype: DTypeLike) -> str | None:
    """Float32 products are asked for in full: a TPU would otherwise round them to bfloat16."""
    return "highest" if dtype == jnp.float32 else None


def _product_dtype(result: DTypeLike) -> DTypeLike:
    """What XLA is asked for, of a product that ends in `result`."""
    return result if traced_backend().narrow_products else jnp.float32


def int8_product(
    x: Int8[Array, "B I"], rows: Int8[Array, "O I"], unsigned: bool = _UNSIGNED
) -> Int32[Array, "B O"]:
    """Exact product of bytes; `unsigned` says how a CPU multiplies."""

    def plain(x: jax.Array) -> jax.Array:
        # With this precision, XLA is handed bytes of both kinds as they are.
        return jax.lax.dot_general(
            x,
            rows,
            _OF_ROWS,
            precision=jax.lax.DotAlgorithmPreset.DEFAULT,
            preferred_element_type=jnp.int32,
        )

    def shifted(x: jax.Array) -> jax.Array:
        # (x + 128) w - 128 w, the latter from a row of its own.
        moved = jax.lax.bitcast_convert_type(x, jnp.uint8) + jnp.uint8(128)
        whole = plain(jnp.pad(moved, ((0, 1), (0, 0)), constant_values=128))
        return whole[:-1] - whole[-1:]

    product: jax.Array = jax.lax.platform_dependent(
        x, cpu=shifted if unsigned else plain, default=plain
    )
    return product


def written_at(
    old: Shaped[Array, "B S *rest"], new: Shaped[Array, "B T *rest"], index: Int[Array, ""] | int
) -> Shaped[Array, "B S *rest"]:
    """The old array with the new one at [index, index + T).

    XLA's CPU backend would make all of a bfloat16 array float32 to write into it, and not of bits.
    """

    def plain(old: jax.Array, new: jax.Array, index: jax.Array | int) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=1)

    def bits(old: jax.Array, new: jax.Array, index: jax.Array | int) -> jax.Array:
        unsigned = f"uint{8 * old.itemsize}"
        return plain(old.view(unsigned), new.view(unsigned), index).view(old.dtype)

    updated: jax.Array = jax.lax.platform_dependent(old, new, index, cpu=bits, default=plain)
    return updated
