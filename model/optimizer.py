"""Adam, warmup and cosine, as PaliGemma's transfers use them."""

import re

import jax
import optax
from flax import traverse_util

Params = dict[str, "jax.Array | Params"]


def learning_schedule(total_steps: int, warmup_steps: int) -> optax.Schedule:
    """Linear warmup from zero, then cosine to zero; 1 at its peak.

    Raises:
        ValueError: no step is left after the warmup.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps={warmup_steps} has to be less than {total_steps} steps")
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps, total_steps)


def make_optimizer(
    learning_rate: float,
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    decayed: str = r".*/kernel",
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
