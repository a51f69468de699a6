"""PaliGemma's computation: image tokens and text through one decoder under a prefix mask."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from paliflow.model.config import PaliGemmaConfig
from paliflow.model.gemma import AttentionInputs, Caches, Decoder
from paliflow.model.layers import Rows
from paliflow.model.shapes import Bool, Float, Float32, Int, Shaped
from paliflow.model.vision import VisionTower
from paliflow.model.xla import ANY, Backend, tracing_for

# Axes: B batch, F frame, P image tokens of all frames, T text, S = P + T, D width, V vocabulary.


def attention_mask(
    mask_ar: Int[Array, "B S"], valid: Bool[Array, "B S"] | None = None
) -> Bool[Array, "B S S"]:
    """Who sees whom: i sees j iff cumsum(mask_ar)[j] <= cumsum(mask_ar)[i].

    `0 0 0 1 1` is a prefix of three that sees itself whole, and a causal suffix of two;
    `1 1 1` is causal; `0 1 0` are two blocks, the second seeing both.

    Args:
        mask_ar: 1 where a token starts a new block that earlier ones cannot see.
        valid: positions that are False neither see nor are seen.
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
    that has eight bits.
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
        dtype: DTypeLike = table.weight.dtype if table.scale is None else jnp.bfloat16
        return dtype

    def encode_images(
        self, images: Shaped[Array | np.ndarray, "B *F H W 3"]
    ) -> Float[Array, "B P D"]:
        """Images, or F frames a row, to what enters the decoder.

        Args:
            images: float32 in [-1, 1]; or uint8, of which a host holds and sends a quarter of the
                bytes.

        Returns:
            The tokens of frame after frame, with nothing between them.
        """
        frames = jnp.asarray(images).reshape(-1, *images.shape[-3:])
        tokens = self.img(frames, self._dtype())
        return tokens.reshape(images.shape[0], -1, tokens.shape[-1])

    def __call__(
        self,
        images: Shaped[Array | np.ndarray, "B *F H W 3"],
        text: Int[Array, "B T"],
        mask_ar: Int[Array, "B T"],
    ) -> Float32[Array, "B T V"]:
        """Teacher-forced logits: at t, those of token t + 1. As `states`."""
        return self.llm.embedder.logits(self.states(images, text, mask_ar))

    def states(
        self,
        images: Shaped[Array | np.ndarray, "B *F H W 3"],
        text: Int[Array, "B T"],
        mask_ar: Int[Array, "B T"],
    ) -> Float[Array, "B T D"]:
        """Hidden states of the text as big_vision trains it: pads are not masked, being last.

        Args:
            images: as `encode_images`.
            text: tokens.
            mask_ar: 0 for the prefix, 1 for suffix and pads.

        Returns:
            At t, the state whose products with the table are the logits of token t + 1.
        """
        image_tokens = self.encode_images(images)
        batch, length, _ = image_tokens.shape
        x = jnp.concatenate([image_tokens, self.llm.embedder.encode(text, self._dtype())], axis=1)
        positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        ar = jnp.concatenate([jnp.zeros((batch, length), mask_ar.dtype), mask_ar], axis=1)
        x, _ = self.llm(x, AttentionInputs(positions, attention_mask(ar)))
        return x[:, length:]

    def prefill(
        self,
        image_tokens: Float[Array, "B P D"],
        prompt: Int[Array, "B T"],
        prompt_mask: Bool[Array, "B T"],
    ) -> tuple[Float32[Array, "B V"], Caches]:
        """Reads image and prompt, all seeing all.

        Args:
            image_tokens: as `encode_images` gives them.
            prompt: padded on the right.
            prompt_mask: True where `prompt` holds a token; at least one in each row.

        Returns:
            Logits of the first token to generate, and the cache of S positions.
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
        token: Int[Array, " B"],
        position: Int[Array, " B"],
        visible: Bool[Array, "B S"],
        cache: Caches,
        index: Int[Array, ""] | int,
    ) -> tuple[Float32[Array, "B V"], Caches]:
        """Reads one more token.

        Args:
            token: of each row.
            position: where in its row it stands.
            visible: the slots of the cache that the token sees, its own included.
            cache: of S slots.
            index: the slot the token takes.

        Returns:
            Logits of the next token, and the cache.
        """
        x = self.llm.embedder.encode(token[:, None], self._dtype())
        inputs = AttentionInputs(position[:, None], visible[:, None, :], index)
        x, cache = self.llm(x, inputs, cache)
        return self.llm.embedder.logits(x)[:, 0], cache

    def extend(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        visible: Bool[Array, "B T S"],
        cache: Caches,
        index: int,
    ) -> Float[Array, "B T D"]:
        """Reads several more tokens of each row side by side, which need not follow each other.

        Args:
            tokens, positions: of each.
            visible: the slots of the cache that each sees, its own included.
            cache: of S slots.
            index: the slot that the first token takes; the others follow.

        Returns:
            Hidden states, for `score`.
        """
        x = self.llm.embedder.encode(tokens, self._dtype())
        x, _ = self.llm(x, AttentionInputs(positions, visible, index), cache)
        return x

    def score(self, x: Float[Array, "B T D"]) -> Float32[Array, "B T V"]:
        """Hidden states to logits of what comes next."""
        return self.llm.embedder.logits(x)
