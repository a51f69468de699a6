"""Trains the vision tower alone, on labels of every patch, before it meets a prompt.

PaliGemma's tower, too, comes to it pretrained. A scene teaches 64 patches at once which digit they
lie on, where its edges are and how many digits stand before it; one answer teaches a few tokens.
From prompts alone, the same tower still misread every eighth single digit after 12,600 steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from numpy.typing import NDArray

from paliflow.benchmarks.digits import scenes
from paliflow.model.images import preprocess
from paliflow.model.network import Network, apply
from paliflow.model.optimizer import Params

# Axes: B batch, N image token.

_NO_DIGIT, _NO_PLACE = 10, scenes.MAX_DIGITS
_DIGITS, _PLACES = slice(0, 11), slice(11, 12 + scenes.MAX_DIGITS)
_EDGES = slice(_PLACES.stop, _PLACES.stop + 4)
_PAPER_WEIGHT = 0.1
"""Most patches lie on no digit; they count this much of one that does."""


class PatchLabels(NamedTuple):
    """What there is to say of each patch whose centre lies in a digit's box."""

    digits: NDArray[np.int32]  # [N] the digit, or `_NO_DIGIT`
    places: NDArray[np.int32]  # [N] how many digits stand left of it, or `_NO_PLACE`
    edges: NDArray[np.float32]  # [N, 4] y, x, y, x of its box, from the centre, in patches


class PatchBatch(NamedTuple):
    """`PatchLabels` of a batch, and its images."""

    images: NDArray[np.float32]  # [B, H, W, 3]
    digits: NDArray[np.int32]  # [B, N]
    places: NDArray[np.int32]  # [B, N]
    edges: NDArray[np.float32]  # [B, N, 4]


@struct.dataclass
class PretrainState:
    """All that changes from step to step."""

    step: jax.Array
    trained: dict[str, Any]
    """`img`, the tower's parameters, and `head`, which is thrown away in the end."""
    opt_state: optax.OptState


def label_patches(scene: scenes.Scene, side: int) -> PatchLabels:
    """The labels of a scene cut into `side` x `side` patches, row by row."""
    digits = np.full((side, side), _NO_DIGIT, np.int32)
    places = np.full((side, side), _NO_PLACE, np.int32)
    edges = np.zeros((side, side, 4), np.float32)
    y, x = (np.mgrid[:side, :side] + 0.5) / side * scene.image.width
    for place, d in enumerate(scene.digits):
        inside = (d.y_min <= y) & (y < d.y_max) & (d.x_min <= x) & (x < d.x_max)
        digits[inside], places[inside] = int(d.label), place
        away = np.stack([d.y_min - y, d.x_min - x, d.y_max - y, d.x_max - x], axis=-1)
        edges[inside] = (away * side / scene.image.width)[inside]
    return PatchLabels(digits.ravel(), places.ravel(), edges.reshape(-1, 4))


def make_patch_batch(
    image_size: int, side: int, seed: int, size: int, step: int, split: str = "train"
) -> PatchBatch:
    """One batch of fresh scenes; seed and step decide all of it."""
    rng = np.random.default_rng((seed, step))
    drawn = [scenes.compose(rng, split, 2) for _ in range(size)]
    images = np.stack([preprocess(scene.image, image_size) for scene in drawn])
    labels = [label_patches(scene, side) for scene in drawn]
    return PatchBatch(images, *(np.stack(column) for column in zip(*labels, strict=True)))


def init_pretraining(
    params: Params, optimizer: optax.GradientTransformation, seed: int
) -> PretrainState:
    """The tower of a network's parameters, under a fresh linear head."""
    tower: Any = params["img"]
    width = tower["head"]["kernel"].shape[-1]
    weights = np.random.default_rng(seed).normal(0, width**-0.5, (width, _EDGES.stop))
    head = {"kernel": jnp.float32(weights), "bias": jnp.zeros(_EDGES.stop)}
    trained = {"img": tower, "head": head}
    return PretrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained))


def make_pretrain_step(
    network: Network, optimizer: optax.GradientTransformation
) -> Callable[[PretrainState, PatchBatch], tuple[PretrainState, dict[str, jax.Array]]]:
    """The jitted step; it consumes the state it is given and returns the next, and `loss`."""

    def loss_of(trained: dict[str, Any], batch: PatchBatch) -> jax.Array:
        said = _say(network, trained, jnp.asarray(batch.images))
        on_digit = jnp.asarray(batch.digits) != _NO_DIGIT
        weight = jnp.where(on_digit, 1.0, _PAPER_WEIGHT)
        entropy = optax.softmax_cross_entropy_with_integer_labels
        named = entropy(said[..., _DIGITS], batch.digits) + entropy(
            said[..., _PLACES], batch.places
        )
        away = jnp.abs(said[..., _EDGES] - batch.edges).mean(-1)
        named = (named * weight).sum() / weight.sum()
        away = (away * on_digit).sum() / on_digit.sum()
        loss: jax.Array = named + away
        return loss

    def step(state: PretrainState, batch: PatchBatch) -> tuple[PretrainState, dict[str, jax.Array]]:
        loss, grads = jax.value_and_grad(loss_of)(state.trained, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        return PretrainState(state.step + 1, trained, opt_state), {"loss": loss}

    return jax.jit(step, donate_argnums=0)


def patch_accuracy(network: Network, state: PretrainState, side: int, count: int = 200) -> float:
    """The share of the patches on held-out digits whose digit the tower names."""
    batch = make_patch_batch(network.config.image_size, side, 0, count, 0, "test")
    said = _say(network, state.trained, jnp.asarray(batch.images))
    on_digit = batch.digits != _NO_DIGIT
    return float((np.asarray(said[..., :_NO_DIGIT].argmax(-1)) == batch.digits)[on_digit].mean())


def _say(network: Network, trained: dict[str, Any], images: jax.Array) -> jax.Array:
    tokens: jax.Array = apply(network, {"img": trained["img"]}, "encode_images", images)
    said: jax.Array = tokens @ trained["head"]["kernel"] + trained["head"]["bias"]
    return said
