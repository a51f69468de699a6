"""What both towers share: weights and the einsum that takes them, affine maps, norms."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from paliflow.model.shapes import Float, Float32, Shaped
from paliflow.model.xla import int8_product, padded_row, rows_product, weight_product

# Axes: R rank of an adapter.


class Adapted(NamedTuple):
    """A weight under a low-rank adapter (arXiv:2106.09685): it acts as `weight + a b`."""

    weight: Float[Array, "..."]
    a: Float[Array, "*inputs R"]
    b: Float[Array, "R *outputs"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("weight", "scale"),
    meta_fields=("outputs", "inputs"),
)
@dataclass(frozen=True)
class Rows:
    """A weight as `layout.pack_weights` lays it for inference: one row of inputs for each output.

    In eight bits, with a `scale`, it acts as `weight * scale`. A matrix, whatever axes its outputs
    and inputs have: of more than two, a TPU pads the last and copies the weight before each
    product.
    """

    weight: Any  # an array [O, I], or what a map over the tree makes of it
    scale: Any  # float32 [O], or None; likewise
    outputs: tuple[int, ...]  # the axes that O stands for
    inputs: tuple[int, ...]  # and I


Kernel = jax.Array | Adapted | Rows


def kernel(
    module: nn.Module, name: str, init: Callable[..., jax.Array], shape: tuple[int, ...]
) -> Any:
    """A module's weight as its parameters hold it.

    Returns:
        The reference's array [*shape], `Adapted` if they hold an adapter beside it; or what
        `layout.pack_weights` made of it, `Rows` or a tuple of them.
    """
    if module.has_variable("params", name):
        held: Any = module.get_variable("params", name)
        if isinstance(held, (Rows, tuple)):
            return held
    weight = module.param(name, init, shape)
    if not module.has_variable("params", f"{name}_lora_a"):
        return weight
    return Adapted(weight, *(module.get_variable("params", f"{name}_lora_{x}") for x in "ab"))


def unstack(weights: Any) -> tuple[Kernel, Kernel]:
    """The two weights that the reference stores as one [2, ...]."""
    if type(weights) is tuple:
        return weights
    return jax.tree.map(itemgetter(0), weights), jax.tree.map(itemgetter(1), weights)


def einsum(
    equation: str, x: Float[Array, "..."], kernel: Kernel, dtype: DTypeLike | None = None
) -> Float[Array, "..."]:
    """`x` times a weight in x's dtype, accumulated in float32; `dtype` of the result, x's if None.

    Float32 products are exact. The axes of the inputs come last in x.
    """
    left, right = equation.split(",")
    weight, result = right.split("->")
    if isinstance(kernel, Rows):
        return _product_of_rows(x, kernel, dtype or x.dtype)
    if isinstance(kernel, Adapted):
        # Two thin products: neither `a b` nor its gradient is ever as large as the weight.
        inputs = "".join(axis for axis in weight if axis not in result)
        outputs = "".join(axis for axis in weight if axis in result)
        rest = "".join(axis for axis in left if axis not in inputs)
        low = einsum(f"{left},{inputs}R->{rest}R", x, kernel.a)
        added = einsum(f"{rest}R,R{outputs}->{result}", low, kernel.b, jnp.float32)
        plain = einsum(equation, x, kernel.weight, jnp.float32)
        return (plain + added).astype(dtype or x.dtype)
    return weight_product(equation, x, kernel, dtype)


def quantise(
    x: Float[Array, "*shape"], axes: tuple[int, ...], dtype: DTypeLike = jnp.int8
) -> tuple[Shaped[Array, "*shape"], Float32[Array, "..."]]:
    """Symmetric: x is about `values * scale`, the largest magnitude along `axes` being the dtype's.

    Args:
        x: any.
        axes: that share a scale.
        dtype: int8, whose largest magnitude is taken as 127; or float8_e4m3fn, whose is 448.

    Returns:
        Values of x's shape, and their scale, with the axes kept as 1.
    """
    wide = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(wide), axis=axes, keepdims=True)
    if dtype == jnp.int8:
        scale = jnp.maximum(largest, 1e-30) / 127
        return jnp.round(wide / scale).astype(dtype), scale
    scale = jnp.maximum(largest, 1e-30) / 448
    return (wide / scale).astype(dtype), scale


def _product_of_rows(x: Float[Array, "..."], kernel: Rows, dtype: DTypeLike) -> Float[Array, "..."]:
    """As `einsum`, of x's last axes; rows of eight bits meet x in theirs, token by token."""
    before = x.shape[: -len(kernel.inputs)]
    count = prod(before)
    wide = padded_row(x.reshape(count, -1))
    if kernel.scale is None:
        product = rows_product(wide, kernel.weight, dtype)
    else:
        values, scale = quantise(wide, (1,), kernel.weight.dtype)
        if values.dtype == jnp.int8:
            product = int8_product(values, kernel.weight)
        else:
            product = rows_product(values, kernel.weight, dtype)
        product = product.astype(jnp.float32) * scale * kernel.scale
    return product[:count].reshape(*before, *kernel.outputs).astype(dtype)


class Affine(nn.Module):
    """`einsum(equation, x, kernel) + bias`; `fan_in` counts the kernel's leading input axes."""

    equation: str
    kernel_shape: tuple[int, ...]
    fan_in: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Maps the input axes of `x` (the kernel's first `fan_in`) to its remaining ones."""
        axes = range(len(self.kernel_shape))
        init = nn.initializers.lecun_normal(axes[: self.fan_in], axes[self.fan_in :])
        weight = kernel(self, "kernel", init, self.kernel_shape)
        bias = self.param("bias", nn.initializers.zeros, self.kernel_shape[self.fan_in :])
        return einsum(self.equation, x, weight) + bias.astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis in float32, epsilon 1e-6."""

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        """Of the same dtype."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:]).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:]).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + 1e-6) * scale + bias).astype(x.dtype)


class RMSNorm(nn.Module):
    """`x / rms(x) * (1 + scale)` in float32, epsilon 1e-6 (arXiv:1910.07467)."""

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        """Of the same dtype."""
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:]).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        variance = jnp.square(wide).mean(-1, keepdims=True)
        return (wide * jax.lax.rsqrt(variance + 1e-6) * (1 + scale)).astype(x.dtype)
