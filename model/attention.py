"""Attention's core: grouped heads, float32 logits, never more of them than a block of queries'."""

import jax
import jax.numpy as jnp
from jax import Array

from paliflow.model.shapes import Bool, Float
from paliflow.model.xla import Backend, attention_product, fused_attention, traced_backend

# Axes: B batch, T query position, S key position, N query head, K key-value head, H head_dim,
# Q query position and head of one K.

MASKED = -2.3819763e38
"""The logit of a masked position, as the reference writes it."""
_SUBLANES = 8
"""Rows of the last two axes that a TPU holds together: fewer heads than that are padded to them."""


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "B #T S"] | None,
    softcap: float | None,
) -> Float[Array, "B T N H"]:
    """Grouped attention with float32 logits and softmax.

    Long sequences go block by block of queries, each seeing all keys: at 896 pixels, where T x S
    float32 logits of one image would be a gigabyte, a sixteenth of it is in memory, or an eighth.
    Where the backend has a kernel for it, none is.

    Args:
        query: already scaled.
        key, value: K divides N.
        mask: which keys each query sees; [B, 1, S] where all queries see the same ones, and then
            the first ones if there are several queries; None where all attend to all.
        softcap: `cap * tanh(logits / cap)` before the mask.

    Returns:
        The mixture of values, in the query's dtype.
    """
    fused = fused_attention(query, key, value, mask, softcap)
    if fused is not None:
        return fused
    length = query.shape[1]
    count = blocks_of(length, traced_backend())
    if count == 1:
        return _attend(query, key, value, mask, softcap)
    own = mask is not None and mask.shape[1] > 1  # each query sees other keys
    size = -(-length // count)  # of 1,032 queries four times 258: nothing is padded

    def blocks(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (0, count * size - length), *[(0, 0)] * (x.ndim - 2)))
        return jnp.moveaxis(padded.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)

    # Computed again in the backward pass, whose residuals would be the T x S logits.
    @jax.checkpoint
    def block(queries: jax.Array, seen: jax.Array | None) -> jax.Array:
        return _attend(queries, key, value, seen if own else mask, softcap)

    seen = blocks(mask) if mask is not None and own else None
    mixed = jax.lax.map(lambda x: block(*x), (blocks(query), seen))
    return jnp.moveaxis(mixed, 0, 1).reshape(query.shape[0], -1, *query.shape[2:])[:, :length]


def blocks_of(length: int, backend: Backend) -> int:
    """How many blocks so many queries go in."""
    return 1 if length <= 2 * backend.queries else round(length / backend.queries)


def _attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "B #T S"] | None,
    softcap: float | None,
) -> Float[Array, "B T N H"]:
    """As `attend`, all queries at once."""
    batch, length, _, dim = query.shape
    kv_heads = key.shape[2]
    # One product per key-value head, over the queries of all its heads: of each position in turn,
    # where the heads of one lie side by side in full, or else of each head.
    by_position = query.shape[2] // kv_heads % _SUBLANES == 0
    q = query.reshape(batch, length, kv_heads, -1, dim)
    q = q.transpose((0, 2, 1, 3, 4) if by_position else (0, 2, 3, 1, 4))
    apart = q.shape[:-1]
    q = q.reshape(batch, kv_heads, -1, dim)
    logits = attention_product("BKQH,BSKH->BKQS", q, key)
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    if mask is not None:
        seen = jnp.expand_dims(mask, (1, 3) if by_position else (1, 2))
        grouped = jnp.where(seen, logits.reshape(*apart, -1), MASKED)
        logits = grouped.reshape(logits.shape)
    weights = jax.nn.softmax(logits, axis=-1)
    mixed = attention_product("BKQS,BSKH->BKQH", weights, value)
    mixed = mixed.reshape(*apart, dim).transpose(
        (0, 2, 1, 3, 4) if by_position else (0, 3, 1, 2, 4)
    )
    return mixed.reshape(query.shape).astype(query.dtype)
