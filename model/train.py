"""The training step: masked suffix loss, Adam, warmup and cosine, as published."""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct, traverse_util
from jax.typing import ArrayLike

from paliflow.model.network import Network, apply

# Axes: B batch, T text, V vocabulary.

Params = dict[str, "jax.Array | Params"]


class Batch(NamedTuple):
    """What one step learns from; see `examples.Texts` for the masks."""

    images: ArrayLike  # float32 [B, H, W, 3] or [B, F, H, W, 3]
    text: ArrayLike  # int32 [B, T]
    mask_ar: ArrayLike  # int32 [B, T]
    mask_loss: ArrayLike  # int32 [B, T]


@struct.dataclass
class TrainState:
    """All that changes from step to step."""

    step: jax.Array
    params: Params
    opt_state: optax.OptState


def suffix_loss(
    logits: jax.Array, targets: jax.Array, weights: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy, averaged over each example's weighted tokens, then over examples.

    Args:
        logits: float32 [B, T, V].
        targets: int32 [B, T].
        weights: [B, T]; 1 where the token counts.
        label_smoothing: the share s; the target has 1 - s, every other token s / (V - 1).

    Returns:
        float32 scalar, in nats.
    """
    logp = jax.nn.log_softmax(logits)
    target = -jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
    others = (-logp.sum(-1) - target) / (logits.shape[-1] - 1)
    loss = (1 - label_smoothing) * target + label_smoothing * others
    per_example = (loss * weights).sum(-1) / jnp.maximum(weights.sum(-1), 1)
    return per_example.mean()


def learning_schedule(total_steps: int, warmup: float = 0.05) -> optax.Schedule:
    """Linear warmup over a share of the steps, then cosine to zero; 1 at its peak."""
    warmup_steps = max(1, round(total_steps * warmup))
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps, total_steps)


def make_optimizer(
    learning_rate: float,
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    decayed: str = r".*/kernel$",
    clip_norm: float = 1.0,
) -> optax.GradientTransformation:
    """Adam as PaliGemma's transfers use it.

    The gradient is clipped by its global norm, scaled by Adam and the learning rate, decay is
    added, and the schedule multiplies the sum: so `weight_decay` does not depend on the learning
    rate. `decayed` is the pattern of parameter paths that decay; big_vision's default, kept here,
    reaches the vision tower alone.
    """

    def decay_mask(params: Params) -> Params:
        flat = traverse_util.flatten_dict(params, sep="/")
        decays = {path: re.fullmatch(decayed, path) is not None for path in flat}
        return traverse_util.unflatten_dict(decays, sep="/")  # type: ignore[no-any-return]

    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.scale(learning_rate),
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.scale_by_schedule(schedule),
        optax.scale(-1.0),
    )


def init_state(network: Network, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Fresh float32 parameters and their optimizer state."""
    size = network.config.image_size
    images = jnp.zeros((1, size, size, 3))
    text = jnp.zeros((1, 1), jnp.int32)
    params = jax.jit(network.init)(jax.random.key(seed), images, text, text)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make_train_step(
    network: Network, optimizer: optax.GradientTransformation, label_smoothing: float = 0.0
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step; it consumes the state it is given.

    Returns:
        A function from state and batch to the next state and `loss` and `grad_norm`.
    """

    def loss_of(params: Params, batch: Batch) -> jax.Array:
        text, mask_ar, mask_loss = (jnp.asarray(x) for x in batch[1:])
        logits = apply(network, params, "__call__", batch.images, text[:, :-1], mask_ar[:, :-1])
        return suffix_loss(logits, text[:, 1:], mask_loss[:, 1:], label_smoothing)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(grads)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(step, donate_argnums=0)
