"""The Gemma decoder, 1 and 2: embedded tokens in, hidden states and key-value cache out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from paliflow.model.attention import attend
from paliflow.model.config import TextConfig
from paliflow.model.layers import RMSNorm, Rows, einsum, kernel, quantise, unstack
from paliflow.model.shapes import Bool, Float, Float32, Int, Int8, Shaped
from paliflow.model.sharding import constrain_activations
from paliflow.model.xla import tied, written_at

# Axes: B batch, T query position, S key position, N query head, K key-value head, H head_dim,
# D width, F mlp_dim, V vocabulary, L layer.


class Quantised(NamedTuple):
    """Keys or values in int8, each head of each position with a scale of its own."""

    values: Int8[Array, "B S K H"]
    scale: Float32[Array, "B S K 1"]


class Cache(NamedTuple):
    """Keys (after RoPE) and values of the positions seen so far."""

    key: Float[Array, "B S K H"] | Quantised
    value: Float[Array, "B S K H"] | Quantised


Caches = Cache | tuple[Cache, ...]
"""Of all layers: each layer's, or [L, B, S, K, H] where the parameters are stacked, too."""


class AttentionInputs(NamedTuple):
    """What each layer is told of the tokens of a call, beside their hidden states and the cache."""

    positions: Int[Array, "B T"]
    """For RoPE."""
    mask: Bool[Array, "B #T S"]
    """Whether query t sees key s; [B, 1, S] for all T alike, as `attend`."""
    slot: Int[Array, ""] | int = 0
    """Where there is a cache, its slots [slot, slot + T) are overwritten."""
    at: Int[Array, " B"] | None = None
    """The one position of each row whose hidden state is wanted, so that the last layer computes
    no other; None for all."""


def quantised(caches: Caches) -> Caches:
    """Caches of each layer, in int8: half the memory and half the reads of bfloat16."""
    narrow: Caches = jax.tree.map(lambda x: Quantised(*quantise(x, (-1,))), caches)
    return narrow


def _written(
    cache: Any, new: Float[Array, "B T K H"], index: Int[Array, ""] | int
) -> tuple[Any, Float[Array, "B S K H"]]:
    """A cache with new keys or values written at a slot, and what it then holds."""
    if isinstance(cache, Quantised):
        cache = Quantised(
            *(written_at(old, x, index) for old, x in zip(cache, quantise(new, (-1,)), strict=True))
        )
        return cache, (cache.values * cache.scale).astype(new.dtype)
    cache = written_at(cache, new, index)
    return cache, cache


def rope(x: Float[Array, "B T N H"], positions: Int[Array, "B T"]) -> Float[Array, "B T N H"]:
    """Rotary position embedding, base 10,000, on split halves (arXiv:2104.09864).

    Computed in float32; the result is of x's dtype.
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
    def __call__(self) -> Any:
        """The weight, as `layers.kernel`."""
        rest = tuple(a for a in range(len(self.shape)) if a != self.in_axis)
        init = nn.initializers.lecun_normal(self.in_axis, rest[-1], batch_axis=rest[:-1])
        return kernel(self, "w", init, self.shape)


class Attention(nn.Module):
    """Grouped-query attention with RoPE; every layer is global, also in PaliGemma 2."""

    config: TextConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: Cache | None, inputs: AttentionInputs
    ) -> tuple[Float[Array, "B #T D"], Cache]:
        """As `Decoder.__call__`, for one layer."""
        c = self.config
        positions, mask, index, at = inputs
        query_w = Weight((c.num_heads, c.width, c.head_dim), 1, name="q_einsum")()
        kv_w = Weight((2, c.num_kv_heads, c.width, c.head_dim), 2, name="kv_einsum")()
        out_w = Weight((c.num_heads, c.head_dim, c.width), 1, name="attn_vec_einsum")()
        key_w, value_w = unstack(kv_w)
        key = rope(einsum("BTD,KDH->BTKH", x, key_w), positions)
        value = einsum("BTD,KDH->BTKH", x, value_w)
        if cache is None:
            cache = Cache(key, value)
        else:
            new_key, key = _written(cache.key, key, index)
            new_value, value = _written(cache.value, value, index)
            cache = Cache(new_key, new_value)
        if at is not None:
            x, positions, mask = pick(x, at), pick(positions, at), pick(mask, at)
        query = rope(einsum("BTD,NDH->BTNH", x, query_w), positions)
        scaled = query * jnp.asarray(c.query_pre_attn_scalar**-0.5, query.dtype)
        mixed = attend(scaled, key, value, mask, c.attn_logits_softcap)
        return einsum("BTNH,NHD->BTD", mixed, out_w), cache


class FeedForward(nn.Module):
    """GeGLU with a tanh-approximated GELU and no biases (arXiv:2002.05202)."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """As the class says."""
        width = x.shape[-1]
        gate_init = nn.initializers.lecun_normal(1, 2, batch_axis=(0,))
        linear_init = nn.initializers.lecun_normal(0, 1)
        gate_w, up_w = unstack(kernel(self, "gating_einsum", gate_init, (2, width, self.hidden)))
        linear_w = kernel(self, "linear", linear_init, (self.hidden, width))
        gate = jax.nn.gelu(einsum("BTD,DF->BTF", x, gate_w), approximate=True)
        hidden = gate * einsum("BTD,DF->BTF", x, up_w)
        return einsum("BTF,FD->BTD", hidden, linear_w)


class Block(nn.Module):
    """One layer: norm, attention, [norm], add; norm, feed-forward, [norm], add.

    In training, `dropout` comes after the one post-norm and before the other, as published.
    """

    config: TextConfig
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: Cache | None, inputs: AttentionInputs
    ) -> tuple[Float[Array, "B #T D"], Cache]:
        """As `Decoder.__call__`, for one layer."""
        y = RMSNorm(name="pre_attention_norm")(x)
        y, cache = Attention(self.config, name="attn")(y, cache, inputs)
        if self.config.post_norms:
            y = RMSNorm(name="post_attention_norm")(y)
        x = x if inputs.at is None else pick(x, inputs.at)
        x = x + nn.Dropout(self.dropout, deterministic=False)(y)
        y = RMSNorm(name="pre_ffw_norm")(x)
        y = FeedForward(self.config.mlp_dim, name="mlp")(y)
        y = nn.Dropout(self.dropout, deterministic=False)(y)
        if self.config.post_norms:
            y = RMSNorm(name="post_ffw_norm")(y)
        return constrain_activations(x + y), cache


class Embedder(nn.Module):
    """The table that embeds tokens and, transposed, scores them."""

    config: TextConfig

    def setup(self) -> None:
        """Declares the table [V, D]."""
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=1, out_axis=0)
        shape = (self.config.vocab_size, self.config.width)
        self.table = kernel(self, "input_embedding", init, shape)

    def encode(self, tokens: Int[Array, "B T"], dtype: DTypeLike) -> Float[Array, "B T D"]:
        """The tokens' rows, scaled by sqrt(D) rounded to the result's dtype."""
        scale = jnp.asarray(self.config.width**0.5, dtype)
        whole = isinstance(self.table, Rows)
        table, tokens = tied((self.table, tokens))
        rows: jax.Array = (table.weight if whole else table)[tokens]
        if whole and table.scale is not None:
            rows = rows.astype(jnp.float32) * table.scale[tokens][..., None]
        return rows.astype(dtype) * scale

    def logits(self, x: Float[Array, "B T D"]) -> Float32[Array, "B T V"]:
        """Of the next token, softcapped if the configuration says so."""
        logits = constrain_activations(einsum("BTD,VD->BTV", x, self.table, dtype=jnp.float32))
        cap = self.config.final_logits_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)


def pick(x: Shaped[Array, "B T *rest"], at: Int[Array, " B"]) -> Shaped[Array, "B 1 *rest"]:
    """x[b, at[b]] for each row b; where T is 1 it stands for all."""
    if x.shape[1] == 1:
        return x
    picked: jax.Array = jnp.take_along_axis(x, at.reshape(-1, *[1] * (x.ndim - 1)), axis=1)
    return picked


class Decoder(nn.Module):
    """All layers and the tied embedding; the layers' parameters stacked, or each layer's apart.

    Stacked is how the reference stores them, and how they are trained. Apart is how
    `layout.pack_weights` lays them for inference, which reads each layer where it lies.

    `remat` recomputes each layer in the backward pass instead of keeping its activations, and
    rolls the layers into a loop, so that one layer's are in memory at a time. Unrolled layers are
    faster, on a CPU above all. `dropout` needs an rng of that name.
    """

    config: TextConfig
    remat: bool = False
    dropout: float = 0.0

    def setup(self) -> None:
        """Declares the reference's names: embedder, layers, final_norm."""
        self.embedder = Embedder(self.config)
        depth = self.config.depth
        self.apart = self.has_variable("params", "layers_0")
        if self.apart:
            self.layers: Any = [Block(self.config, self.dropout) for _ in range(depth)]
        else:
            block = nn.remat(Block, prevent_cse=False) if self.remat else Block
            self.layers = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast),
                out_axes=0,
                length=depth,
                unroll=1 if self.remat else depth,
            )(self.config, self.dropout)
        self.final_norm = RMSNorm()

    def __call__(
        self,
        x: Float[Array, "B T D"],
        inputs: AttentionInputs,
        cache: Caches | None = None,
    ) -> tuple[Float[Array, "B #T D"], Caches]:
        """Runs all layers.

        Args:
            x: embedded tokens; its dtype is that of the matrix products.
            inputs: of these tokens.
            cache: None, and then S = T; or S slots.

        Returns:
            Normalised hidden states [B, T, D], or [B, 1, D] of `at`; and keys and values of all S
            positions.
        """
        x = constrain_activations(x)
        everywhere = inputs._replace(at=None)
        if self.apart:
            caches: list[Cache] = []
            for layer, block in enumerate(self.layers):
                own = None if cache is None else cache[layer]
                last = layer == self.config.depth - 1
                x, new = block(x, own, inputs if last else everywhere)
                x = tied(x)
                caches.append(new)
            return self.final_norm(x), tuple(caches)
        x, cache = self.layers(x, cache, everywhere)
        return self.final_norm(x if inputs.at is None else pick(x, inputs.at)), cache
