"""What both towers share: an einsum that accumulates in float32, attention's core, affine maps."""

from operator import itemgetter
from os.path import commonprefix
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

# Axes: B batch, S key position, K key-value head, Q query position and head of one K, h head_dim,
# R rank of an adapter.

MASKED = -2.3819763e38
"""The logit of a masked position, as the reference writes it."""


class Adapted(NamedTuple):
    """A weight under a low-rank adapter (arXiv:2106.09685): it acts as `weight + a b`."""

    weight: jax.Array
    a: jax.Array  # [*inputs, R]
    b: jax.Array  # [R, *outputs]


Kernel = jax.Array | Adapted


def adapted(module: nn.Module, name: str, weight: jax.Array) -> Kernel:
    """A module's weight, under its adapter if the parameters hold one beside it."""
    if not module.has_variable("params", f"{name}_lora_a"):
        return weight
    return Adapted(weight, *(module.get_variable("params", f"{name}_lora_{x}") for x in "ab"))


def unstack(weights: Kernel) -> tuple[Kernel, Kernel]:
    """The two weights that the reference stores as one [2, ...]."""
    return jax.tree.map(itemgetter(0), weights), jax.tree.map(itemgetter(1), weights)


def einsum(
    equation: str, x: jax.Array, kernel: Kernel, dtype: DTypeLike | None = None
) -> jax.Array:
    """`x` times a weight in x's dtype, accumulated in float32; `dtype` of the result, x's if None.

    Float32 products are asked for in full: a TPU would otherwise round their operands to bfloat16.
    The axes that x and the result begin with become one, since the gradient of a weight that
    sums over two axes takes XLA's CPU backend twice as long.
    """
    left, right = equation.split(",")
    weight, result = right.split("->")
    if isinstance(kernel, Adapted):
        # Two thin products: neither `a b` nor its gradient is ever as large as the weight.
        inputs = "".join(axis for axis in weight if axis not in result)
        outputs = "".join(axis for axis in weight if axis in result)
        rest = "".join(axis for axis in left if axis not in inputs)
        low = einsum(f"{left},{inputs}R->{rest}R", x, kernel.a)
        added = einsum(f"{rest}R,R{outputs}->{result}", low, kernel.b, jnp.float32)
        plain = einsum(equation, x, kernel.weight, jnp.float32)
        return (plain + added).astype(dtype or x.dtype)
    rows = len(commonprefix([left, result]))
    product = jnp.einsum(
        f"{left[0]}{left[rows:]},{weight}->{left[0]}{result[rows:]}",
        x.reshape(-1, *x.shape[rows:]),
        kernel.astype(x.dtype),
        precision="highest" if x.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )
    return product.reshape(*x.shape[:rows], *product.shape[1:]).astype(dtype or x.dtype)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    softcap: float | None,
) -> jax.Array:
    """Grouped attention with float32 logits and softmax.

    Args:
        query: [B, T, H, h], already scaled.
        key, value: [B, S, K, h]; K divides H.
        mask: bool [B, T, S], or None where all attend to all.
        softcap: `cap * tanh(logits / cap)` before the mask.

    Returns:
        [B, T, H, h] in the query's dtype.
    """
    batch, length, _, dim = query.shape
    kv_heads = key.shape[2]
    # One product per key-value head, over the queries of all its heads. Float32 operands: XLA's
    # CPU backend has no batched bfloat16 product with a float32 result.
    q, k, v = (x.astype(jnp.float32) for x in (query, key, value))
    q = q.reshape(batch, length, kv_heads, -1, dim).transpose(0, 2, 1, 3, 4)
    q = q.reshape(batch, kv_heads, -1, dim)
    logits = jnp.einsum("BKQh,BSKh->BKQS", q, k, precision="highest")
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    if mask is not None:
        grouped = logits.reshape(batch, kv_heads, length, -1, mask.shape[-1])
        grouped = jnp.where(mask[:, None, :, None, :], grouped, MASKED)
        logits = grouped.reshape(logits.shape)
    weights = jax.nn.softmax(logits, axis=-1)
    mixed = jnp.einsum("BKQS,BSKh->BKQh", weights, v, precision="highest")
    mixed = mixed.reshape(batch, kv_heads, length, -1, dim).transpose(0, 2, 1, 3, 4)
    return mixed.reshape(query.shape).astype(query.dtype)


class Affine(nn.Module):
    """`einsum(equation, x, kernel) + bias`; `fan_in` counts the kernel's leading input axes."""

    equation: str
    kernel_shape: tuple[int, ...]
    fan_in: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps the input axes of `x` (the kernel's first `fan_in`) to its remaining ones."""
        axes = range(len(self.kernel_shape))
        init = nn.initializers.lecun_normal(axes[: self.fan_in], axes[self.fan_in :])
        kernel = self.param("kernel", init, self.kernel_shape)
        bias = self.param("bias", nn.initializers.zeros, self.kernel_shape[self.fan_in :])
        return einsum(self.equation, x, adapted(self, "kernel", kernel)) + bias.astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis in float32, epsilon 1e-6."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] to [..., D], same dtype."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:]).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:]).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + 1e-6) * scale + bias).astype(x.dtype)


class RMSNorm(nn.Module):
    """`x / rms(x) * (1 + scale)` in float32, epsilon 1e-6 (arXiv:1910.07467)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] to [..., D], same dtype."""
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:]).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        variance = jnp.square(wide).mean(-1, keepdims=True)
        return (wide * jax.lax.rsqrt(variance + 1e-6) * (1 + scale)).astype(x.dtype)
