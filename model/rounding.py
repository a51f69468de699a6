"""Stochastic rounding of float32 to bfloat16: right on average, however small a change was."""

from math import prod

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from paliflow.model.shapes import BFloat16, Float32, UInt32


@jax.jit
def round_stochastically(x: Float32[Array, "*shape"], seed: ArrayLike) -> BFloat16[Array, "*shape"]:
    """Rounds float32 to one of its two neighbours in bfloat16, the nearer the likelier.

    The expectation of the result is `x`; what bfloat16 can hold stays as it is.

    Args:
        x: of any shape.
        seed: uint32; the same seed and shape draw the same, however x is sharded.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    # The lower half of the bits is the distance from the neighbour that is nearer to zero.
    noise = _noise(x.shape, seed) >> 16
    rounded = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def _noise(shape: tuple[int, ...], seed: ArrayLike) -> UInt32[Array, "..."]:
    """Uniform uint32: the position of each element, mixed as MurmurHash3 ends.

    `jax.random.bits` takes a CPU half a second of compilation a shape, and ten times as long.
    """
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = jnp.uint32(prod(shape[axis + 1 :]) % 2**32)
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    mixed = index * jnp.uint32(0x9E3779B1) ^ jnp.asarray(seed, jnp.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    noise: jax.Array = mixed ^ (mixed >> 16)
    return noise
