"""The Gemma decoder, 1 and 2: embedded tokens in, hidden states and key-value cache out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from paliflow.model.config import TextConfig
from paliflow.model.layers import Kernel, RMSNorm, adapted, attend, einsum, unstack
from paliflow.model.sharding import spread

# Axes: B batch, T query position, S key position, D width, M mlp_dim, H query head,
# K key-value head, h head_dim, V vocabulary, L layer.


class Cache(NamedTuple):
    """Keys (after RoPE) and values of the positions seen so far."""

    key: jax.Array  # [L, B, S, K, h]; without L inside a layer
    value: jax.Array  # [L, B, S, K, h]


def rope(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotary position embedding, base 10,000, on split halves (arXiv:2104.09864).

    Args:
        x: [B, T, H, h].
        positions: int32 [B, T].

    Returns:
        [B, T, H, h], computed in float32, in x's dtype.
    """
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** -(jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[:, :, None, None].astype(jnp.float32) * frequency
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = [
        first * jnp.cos(angle) - second * jnp.sin(angle),
        second * jnp.cos(angle) + first * jnp.sin(angle),
    ]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


class Weight(nn.Module):
    """One einsum weight named `w`, as the reference names them."""

    shape: tuple[int, ...]
    in_axis: int

    @nn.compact
    def __call__(self) -> Kernel:
        """The weight, in the dtype it is stored in."""
        rest = tuple(a for a in range(len(self.shape)) if a != self.in_axis)
        init = nn.initializers.lecun_normal(self.in_axis, rest[-1], batch_axis=rest[:-1])
        return adapted(self, "w", self.param("w", init, self.shape))


class Attention(nn.Module):
    """Grouped-query attention with RoPE; every layer is global, also in PaliGemma 2."""

    config: TextConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        cache: Cache | None,
        positions: jax.Array,
        mask: jax.Array,
        index: jax.Array | int,
    ) -> tuple[jax.Array, Cache]:
        """As `Decoder.__call__`, for one layer."""
        c = self.config
        query_w = Weight((c.num_heads, c.width, c.head_dim), 1, name="q_einsum")()
        kv_w = Weight((2, c.num_kv_heads, c.width, c.head_dim), 2, name="kv_einsum")()
        out_w = Weight((c.num_heads, c.head_dim, c.width), 1, name="attn_vec_einsum")()
        key_w, value_w = unstack(kv_w)
        query = rope(einsum("BTD,HDh->BTHh", x, query_w), positions)
        key = rope(einsum("BTD,KDh->BTKh", x, key_w), positions)
        value = einsum("BTD,KDh->BTKh", x, value_w)
        if cache is not None:
            key = jax.lax.dynamic_update_slice_in_dim(cache.key, key, index, axis=1)
            value = jax.lax.dynamic_update_slice_in_dim(cache.value, value, index, axis=1)
        scaled = query * jnp.asarray(c.query_pre_attn_scalar**-0.5, query.dtype)
        mixed = attend(scaled, key, value, mask, c.attn_logits_softcap)
        return einsum("BTHh,HhD->BTD", mixed, out_w), Cache(key, value)


class FeedForward(nn.Module):
    """GeGLU with a tanh-approximated GELU and no biases (arXiv:2002.05202)."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] to [B, T, D]."""
        width = x.shape[-1]
        gate_init = nn.initializers.lecun_normal(1, 2, batch_axis=(0,))
        gating = self.param("gating_einsum", gate_init, (2, width, self.hidden))
        linear = self.param("linear", nn.initializers.lecun_normal(0, 1), (self.hidden, width))
        gate_w, up_w = unstack(adapted(self, "gating_einsum", gating))
        gate = jax.nn.gelu(einsum("BTD,DM->BTM", x, gate_w), approximate=True)
        hidden = gate * einsum("BTD,DM->BTM", x, up_w)
        return einsum("BTM,MD->BTD", hidden, adapted(self, "linear", linear))


class Block(nn.Module):
    """One layer: norm, attention, [norm], add; norm, feed-forward, [norm], add.

    In training, `dropout` comes after the one post-norm and before the other, as published.
    """

    config: TextConfig
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        cache: Cache | None,
        positions: jax.Array,
        mask: jax.Array,
        index: jax.Array | int,
    ) -> tuple[jax.Array, Cache]:
        """As `Decoder.__call__`, for one layer."""
        y = RMSNorm(name="pre_attention_norm")(x)
        y, cache = Attention(self.config, name="attn")(y, cache, positions, mask, index)
        if self.config.post_norms:
            y = RMSNorm(name="post_attention_norm")(y)
        x = x + nn.Dropout(self.dropout, deterministic=False)(y)
        y = RMSNorm(name="pre_ffw_norm")(x)
        y = FeedForward(self.config.mlp_dim, name="mlp")(y)
        y = nn.Dropout(self.dropout, deterministic=False)(y)
        if self.config.post_norms:
            y = RMSNorm(name="post_ffw_norm")(y)
        return spread(x + y), cache


class Embedder(nn.Module):
    """The table that embeds tokens and, transposed, scores them."""

    config: TextConfig

    def setup(self) -> None:
        """Declares the table [V, D]."""
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=1, out_axis=0)
        shape = (self.config.vocab_size, self.config.width)
        self.table = self.param("input_embedding", init, shape)

    def encode(self, tokens: jax.Array, dtype: DTypeLike) -> jax.Array:
        """int32 [B, T] to [B, T, D], scaled by sqrt(D) rounded to the result's dtype."""
        scale = jnp.asarray(self.config.width**0.5, dtype)
        return self.table[tokens].astype(dtype) * scale

    def logits(self, x: jax.Array) -> jax.Array:
        """[B, T, D] to float32 [B, T, V], softcapped if the configuration says so."""
        logits = spread(einsum("BTD,VD->BTV", x, self.table, dtype=jnp.float32))
        cap = self.config.final_logits_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)


class Decoder(nn.Module):
    """All layers, their parameters stacked on a leading axis, and the tied embedding.

    `remat` recomputes each layer in the backward pass instead of keeping its activations, and
    rolls the layers into a loop, so that one layer's are in memory at a time. Unrolled layers are
    faster, on a CPU above all. `dropout` needs an rng of that name.
    """

    config: TextConfig
    remat: bool = False
    dropout: float = 0.0

    def setup(self) -> None:
        """Declares the reference's names: embedder, layers, final_norm."""
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        self.embedder = Embedder(self.config)
        self.layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            out_axes=0,
            length=self.config.depth,
            unroll=1 if self.remat else self.config.depth,
        )(self.config, self.dropout)
        self.final_norm = RMSNorm()

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        cache: Cache | None = None,
        index: jax.Array | int = 0,
    ) -> tuple[jax.Array, Cache]:
        """Runs all layers.

        Args:
            x: [B, T, D] embedded tokens; its dtype is that of the matrix products.
            positions: int32 [B, T] for RoPE.
            mask: bool [B, T, S]; query t sees key s.
            cache: None, and then S = T; or S slots, of which [index, index + T) are overwritten.
            index: int32 scalar; only with a cache.

        Returns:
            Normalised hidden states [B, T, D], and keys and values of all S positions.
        """
        x, cache = self.layers(spread(x), cache, positions, mask, index)
        return self.final_norm(x), cache
