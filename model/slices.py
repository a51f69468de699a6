"""A batch in slices of rows, one after the other: what is transient is of one slice alone."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from paliflow.model.xla import TOKENS, tied

T = TypeVar("T")

# Axes: B batch, b row of a slice, s slice.


def slices(rows: int, tokens: int, most: int = TOKENS) -> int:
    """How many slices of equal size rows are cut to, as few as possible.

    Args:
        rows: on a device, at least 1.
        tokens: of each; one that has more than `most` is a slice of its own.
        most: tokens of a slice.
    """
    allowed = max(1, most // tokens)
    return next(
        count for count in range(1, rows + 1) if rows <= count * allowed and not rows % count
    )


def sliced(function: Callable[..., T], count: int, *arrays: jax.Array) -> T:
    """`function(*arrays)`, a slice at a time.

    Args:
        function: of rows that do not see each other.
        count: of slices, s.
        arrays: [B, ...]; s divides B, and the rows of each device where they are spread.

    Returns:
        The tree of arrays [B, ...] that the function returns.
    """
    if count == 1:
        return function(*arrays)

    def piece(index: jax.Array) -> T:
        index, *whole = tied((index, *arrays))
        # Every s-th row: those of a slice lie on all devices, as the batch's do.
        apart = (x.reshape(-1, count, *x.shape[1:]) for x in whole)
        return function(*(jax.lax.dynamic_index_in_dim(x, index, 1, False) for x in apart))

    results = jax.lax.map(piece, jnp.arange(count))  # [s, b, ...]
    joined: T = jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1).reshape(-1, *y.shape[2:]), results)
    return joined
