"""The loss as published: cross-entropy of the suffix, averaged within each example first."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from paliflow.model.network import Network

# Axes: B batch, T text, V vocabulary.


class Batch(NamedTuple):
    """What one step learns from; see `examples.Texts` for the masks.

    A row whose `mask_loss` is all 0 does not count: the step is as if it were not there.
    """

    images: ArrayLike  # float32 [B, H, W, 3] or [B, F, H, W, 3]
    text: ArrayLike  # int32 [B, T]
    mask_ar: ArrayLike  # int32 [B, T]
    mask_loss: ArrayLike  # int32 [B, T]


def suffix_losses(
    logits: jax.Array, targets: jax.Array, weights: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Each example's cross-entropy, averaged over its weighted tokens.

    Args:
        logits: float32 [B, T, V].
        targets: int32 [B, T].
        weights: [B, T]; 1 where the token counts.
        label_smoothing: the share s; the target has 1 - s, every other token s / (V - 1).

    Returns:
        float32 [B], in nats; 0 where no token counts.
    """
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    loss = normaliser - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    if label_smoothing:
        size = logits.shape[-1]
        others = (size * normaliser - logits.sum(-1) - loss) / (size - 1)
        loss = (1 - label_smoothing) * loss + label_smoothing * others
    return (loss * weights).sum(-1) / jnp.maximum(weights.sum(-1), 1)


def count_examples(batch: Batch) -> jax.Array:
    """int32, the rows that count."""
    count: jax.Array = (jnp.asarray(batch.mask_loss)[:, 1:] != 0).any(1).sum()
    return count


def batch_losses(
    network: Network,
    params: Any,
    batch: Batch,
    label_smoothing: float = 0.0,
    rngs: dict[str, jax.Array] | None = None,
) -> jax.Array:
    """`suffix_losses` of a network with these parameters.

    Args:
        rngs: `dropout`'s key, if the network has any.
    """
    text, mask_ar, mask_loss = (jnp.asarray(x) for x in batch[1:])
    inputs = batch.images, text[:, :-1], mask_ar[:, :-1]
    logits: Any = network.apply({"params": params}, *inputs, rngs=rngs)
    return suffix_losses(logits, text[:, 1:], mask_loss[:, 1:], label_smoothing)
