"""Attention's core: grouped heads, float32 logits, never more of them than a block of queries'."""

import jax
import jax.numpy as jnp

from paliflow.model.xla import traced_backend

# Axes: B batch, T query position, S key position, H query head, K key-value head, h head_dim,
# Q query position and head of one K.

MASKED = -2.3819763e38
"""The logit of a masked position, as the reference writes it."""
BLOCK = 512
"""Queries whose logits are in memory at a time, where there are more than twice as many."""


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    softcap: float | None,
) -> jax.Array:
    """Grouped attention with float32 logits and softmax.

    Long sequences go block by block of queries, each seeing all keys: at 896 pixels, where T x S
    float32 logits of one image would be a gigabyte, an eighth of it is in memory. Where the backend
    has a kernel for it, none is.

    Args:
        query: [B, T, H, h], already scaled.
        key, value: [B, S, K, h]; K divides H.
        mask: bool [B, T, S]; or [B, 1, S] where all queries see the same keys, the first ones if
            there are several queries; or None where all attend to all.
        softcap: `cap * tanh(logits / cap)` before the mask.

    Returns:
        [B, T, H, h] in the query's dtype.
    """
    length = query.shape[1]
    fused = traced_backend().attention
    if fused and query.dtype == jnp.bfloat16 and length > 1 and softcap is None:
        lengths = None
        if mask is not None and mask.shape[1] == 1:
            # A kernel that is told lengths takes half the time of one that reads a mask, or less.
            lengths = mask[:, 0].sum(-1, dtype=jnp.int32)
            mask = None
        return jax.nn.dot_product_attention(
            *(query, key, value),
            mask=None if mask is None else mask[:, None],
            key_value_seq_lengths=lengths,
            scale=1.0,
            implementation=fused,
        )
    if length <= 2 * BLOCK:
        return _attend(query, key, value, mask, softcap)
    own = mask is not None and mask.shape[1] > 1  # each query sees other keys

    def blocks(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (0, -length % BLOCK), *[(0, 0)] * (x.ndim - 2)))
        return jnp.moveaxis(padded.reshape(x.shape[0], -1, BLOCK, *x.shape[2:]), 1, 0)

    # Computed again in the backward pass, whose residuals would be the T x S logits.
    @jax.checkpoint
    def block(queries: jax.Array, seen: jax.Array | None) -> jax.Array:
        return _attend(queries, key, value, seen if own else mask, softcap)

    seen = blocks(mask) if mask is not None and own else None
    mixed = jax.lax.map(lambda x: block(*x), (blocks(query), seen))
    return jnp.moveaxis(mixed, 0, 1).reshape(query.shape[0], -1, *query.shape[2:])[:, :length]


def _attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    softcap: float | None,
) -> jax.Array:
    """As `attend`, all queries at once."""
    batch, length, _, dim = query.shape
    kv_heads = key.shape[2]
    # One product per key-value head, over the queries of all its heads.
    q = query.reshape(batch, length, kv_heads, -1, dim).transpose(0, 2, 1, 3, 4)
    q = q.reshape(batch, kv_heads, -1, dim)
    logits = _product("BKQh,BSKh->BKQS", q, key)
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    if mask is not None:
        grouped = logits.reshape(batch, kv_heads, length, -1, mask.shape[-1])
        grouped = jnp.where(mask[:, None, :, None, :], grouped, MASKED)
        logits = grouped.reshape(logits.shape)
    weights = jax.nn.softmax(logits, axis=-1)
    mixed = _product("BKQS,BSKh->BKQh", weights, value)
    mixed = mixed.reshape(batch, kv_heads, length, -1, dim).transpose(0, 2, 1, 3, 4)
    return mixed.reshape(query.shape).astype(query.dtype)


def _product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Accumulated in float32, the operands in y's dtype, as the reference rounds its weights."""

    def wide(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)
        return jnp.einsum(equation, x, y, precision="highest")

    def narrow(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.einsum(equation, x.astype(y.dtype), y, preferred_element_type=jnp.float32)

    if y.dtype == jnp.float32:
        return wide(x, y)
    # XLA's CPU backend has no batched bfloat16 product with a float32 result.
    product: jax.Array = jax.lax.platform_dependent(x, y, cpu=wide, default=narrow)
    return product
