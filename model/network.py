"""PaliGemma's computation: image tokens and text through one decoder under a prefix mask."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from paliflow.model.config import PaliGemmaConfig
from paliflow.model.gemma import AttentionInputs, Caches, Decoder
from paliflow.model.layers import Rows
from paliflow.model.vision import VisionTower
from paliflow.model.xla import ANY, Backend, tracing_for

# Axes: B batch, F frame, P image tokens of all frames, T text, S = P + T, D width, V vocabulary.


def attention_mask(mask_ar: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Who sees whom: i sees j iff cumsum(mask_ar)[j] <= cumsum(mask_ar)[i].

    `0 0 0 1 1` is a prefix of three that sees itself whole, and a causal suffix of two;
    `1 1 1` is causal; `0 1 0` are two blocks, the second seeing both.

    Args:
        mask_ar: int32 [B, S]; 1 where a token starts a new block that earlier ones cannot see.
        valid: bool [B, S]; positions that are False neither see nor are seen.

    Returns:
        bool [B, S, S].
    """
    order = jnp.cumsum(mask_ar, axis=1)
    mask = order[:, None, :] <= order[:, :, None]
    return mask if valid is None else mask & valid[:, None, :] & valid[:, :, None]


def apply(network: "Network", params: Any, method: str, *args: Any) -> Any:
    """Calls a method of the network with its parameters, without the top-level `params` key."""
    with tracing_for(network.backend):
        return network.apply({"params": params}, *args, method=method)


class Network(nn.Module):
    """PaliGemma as a Flax module; its parameter tree is big_vision's.

    `dtype` is that of activations; None means the dtype the weights are stored in, bfloat16 where
    that is int8.
    `remat` and `dropout` are for training: see `Decoder`. `backend` is for `apply`.
    """

    config: PaliGemmaConfig
    dtype: DTypeLike | None = None
    remat: bool = False
    dropout: float = 0.0
    backend: Backend = ANY

    def setup(self) -> None:
        """Declares the reference's names: img, llm."""
        self.img = VisionTower(self.config.vision, self.config.text.width, self.remat)
        self.llm = Decoder(self.config.text, self.remat, self.dropout)

    def _dtype(self) -> DTypeLike:
        table = self.llm.embedder.table
        if self.dtype or not isinstance(table, Rows):
            return self.dtype or table.dtype
        return table.weight.dtype if table.scale is None else jnp.bfloat16

    def encode_images(self, images: jax.Array) -> jax.Array:
        """Images to what enters the decoder.

        Args:
            images: [B, H, W, 3] or [B, F, H, W, 3], float32 in [-1, 1]; or uint8, of which a host
                holds and sends a quarter of the bytes.

        Returns:
            [B, P, D]; the tokens of frame after frame, with nothing between them.
        """
        frames = images.reshape(-1, *images.shape[-3:])
        tokens = self.img(frames, self._dtype())
        return tokens.reshape(images.shape[0], -1, tokens.shape[-1])

    def __call__(self, images: jax.Array, text: jax.Array, mask_ar: jax.Array) -> jax.Array:
        """Teacher-forced logits float32 [B, T, V]: at t, those of token t + 1. As `states`."""
        return self.llm.embedder.logits(self.states(images, text, mask_ar))

    def states(self, images: jax.Array, text: jax.Array, mask_ar: jax.Array) -> jax.Array:
        """Hidden states of the text as big_vision trains it, teacher-forced.

        Pads are not masked, being last and causal.

        Args:
            images: as `encode_images`.
            text, mask_ar: int32 [B, T]; 0 in mask_ar for the prefix, 1 for suffix and pads.

        Returns:
            [B, T, D]; at t, the state whose products with the table are the logits of token t + 1.
        """
        image_tokens = self.encode_images(images)
        batch, length, _ = image_tokens.shape
        x = jnp.concatenate([image_tokens, self.llm.embedder.encode(text, self._dtype())], axis=1)
        positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        ar = jnp.concatenate([jnp.zeros((batch, length), mask_ar.dtype), mask_ar], axis=1)
        x, _ = self.llm(x, AttentionInputs(positions, attention_mask(ar)))
        return x[:, length:]

    def prefill(
        self, image_tokens: jax.Array, prompt: jax.Array, prompt_mask: jax.Array
    ) -> tuple[jax.Array, Caches]:
        """Reads image and prompt, all seeing all.

        Args:
            image_tokens: [B, P, D].
            prompt: int32 [B, T], padded on the right.
            prompt_mask: bool [B, T], True where `prompt` holds a token; at least one in each row.

        Returns:
            float32 [B, V] logits of the first token to generate, and the cache of S positions.
        """
        text = self.llm.embedder.encode(prompt, self._dtype())
        x = jnp.concatenate([image_tokens.astype(text.dtype), text], axis=1)
        image_mask = jnp.ones(image_tokens.shape[:2], bool)
        valid = jnp.concatenate([image_mask, prompt_mask], axis=1)
        positions = jnp.cumsum(valid, axis=1) - 1
        # What a pad computes, nobody sees: all queries may see the same keys.
        last = positions[:, -1]
        x, cache = self.llm(x, AttentionInputs(positions, valid[:, None, :], at=last))
        return self.llm.embedder.logits(x)[:, 0], cache

    def decode(
        self,
        token: jax.Array,
        position: jax.Array,
        visible: jax.Array,
        cache: Caches,
        index: jax.Array,
    ) -> tuple[jax.Array, Caches]:
        """Reads one more token.

        Args:
            token, position: int32 [B].
            visible: bool [B, S], the slots of the cache that the token sees, its own included.
            cache: of S slots.
            index: int32 scalar, the slot the token takes.

        Returns:
            float32 [B, V] logits of the next token, and the cache.
        """
        x = self.llm.embedder.encode(token[:, None], self._dtype())
        inputs = AttentionInputs(position[:, None], visible[:, None, :], index)
        x, cache = self.llm(x, inputs, cache)
        return self.llm.embedder.logits(x)[:, 0], cache

    def extend(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        visible: jax.Array,
        cache: Caches,
        index: int,
    ) -> jax.Array:
        """Reads several more tokens of each row side by side, which need not follow each other.

        Args:
            tokens, positions: int32 [B, T].
            visible: bool [B, T, S], the slots of the cache that each sees, its own included.
            cache: of S slots.
            index: the slot that the first token takes; the others follow.

        Returns:
            Hidden states [B, T, D], for `score`.
        """
        x = self.llm.embedder.encode(tokens, self._dtype())
        x, _ = self.llm(x, AttentionInputs(positions, visible, index), cache)
        return x

    def score(self, x: jax.Array) -> jax.Array:
        """Hidden states [B, T, D] to float32 [B, T, V], logits of what comes next."""
        return self.llm.embedder.logits(x)
