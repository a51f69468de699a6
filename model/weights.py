"""Weights as named leaves: what the shapes say of the configuration, and loud loading."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from math import isqrt, prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import AbstractMesh, Mesh
from jax.typing import DTypeLike
from numpy.typing import NDArray

from paliflow.model.config import PaliGemmaConfig, TextConfig, VisionConfig
from paliflow.model.files import CheckpointError
from paliflow.model.layout import pack_weights, weight_shardings
from paliflow.model.network import Network
from paliflow.model.sharding import placed

Array = NDArray[Any]


class Leaf(NamedTuple):
    """One parameter in a file, read when asked for."""

    shape: tuple[int, ...]
    read: Callable[[np.dtype[Any]], Array]
    """Reads it, converted to a dtype."""
    layers: tuple["Leaf", ...] = ()
    """Of a stack, where each can be read by itself."""


_BLOCK = "img/Transformer/encoderblock"
_ATTENTION = f"{_BLOCK}/MultiHeadDotProductAttention_0"
_GEMMA_27B = (4608, 32)  # width and heads: the one model whose query scale is not head_dim^-0.5


def infer_config(shapes: Mapping[str, tuple[int, ...]], **overrides: Any) -> PaliGemmaConfig:
    """Reads the configuration off the parameters' shapes.

    What shapes cannot tell has these defaults: attention logits are capped at 50 where there are
    post-norms, as in Gemma 2; the query is scaled by head_dim^-0.5, by 1/12 in the 27B model.

    Args:
        shapes: by big_vision's parameter path.
        overrides: any field of `TextConfig` by name, or `image_size` in pixels.

    Raises:
        CheckpointError: a parameter that the configuration is read from is missing or odd.
        TypeError: an override that is not one.
    """
    try:
        if odd := next((path for path, shape in shapes.items() if min(shape, default=1) < 1), None):
            raise ValueError(f"{odd} {shapes[odd]} is empty")
        _, patches, position_width = shapes["img/pos_embedding"]
        patch, _, _, vision_width = shapes["img/embedding/kernel"]
        if isqrt(patches) ** 2 != patches or position_width != vision_width:
            raise ValueError(
                f"img/pos_embedding {shapes['img/pos_embedding']} is no square of patches"
            )
        depth, _, vision_heads, _ = shapes[f"{_ATTENTION}/query/kernel"]
        vision = VisionConfig(
            width=vision_width,
            depth=depth,
            mlp_dim=shapes[f"{_BLOCK}/MlpBlock_0/Dense_0/kernel"][-1],
            num_heads=vision_heads,
            patch_size=patch,
            num_patches=patches,
        )
        vocab_size, width = shapes["llm/embedder/input_embedding"]
        depth, heads, _, head_dim = shapes["llm/layers/attn/q_einsum/w"]
        post_norms = "llm/layers/post_attention_norm/scale" in shapes
        text = TextConfig(
            vocab_size=vocab_size,
            width=width,
            depth=depth,
            mlp_dim=shapes["llm/layers/mlp/linear"][1],
            num_heads=heads,
            num_kv_heads=shapes["llm/layers/attn/kv_einsum/w"][2],
            head_dim=head_dim,
            query_pre_attn_scalar=width // heads if (width, heads) == _GEMMA_27B else head_dim,
            attn_logits_softcap=50.0 if post_norms else None,
            post_norms=post_norms,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"not a PaliGemma checkpoint, missing or odd: {error}; "
            f"it has {len(shapes)} parameters, e.g. {sorted(shapes)[:3]}"
        ) from None
    if (image_size := overrides.pop("image_size", None)) is not None:
        if image_size % patch:
            raise TypeError(f"image_size={image_size} is not a multiple of the patch size {patch}")
        vision = replace(vision, num_patches=(image_size // patch) ** 2)
    if unknown := overrides.keys() - {field.name for field in fields(TextConfig)}:
        known = ", ".join(["image_size", *(field.name for field in fields(TextConfig))])
        raise TypeError(f"no such override: {', '.join(sorted(unknown))}; there are {known}")
    return PaliGemmaConfig(vision, replace(text, **overrides))


def expected_shapes(config: PaliGemmaConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, by big_vision's path; nothing is allocated."""
    return dict(_expected_shapes(config))


@cache
def _expected_shapes(config: PaliGemmaConfig) -> Mapping[str, tuple[int, ...]]:
    """Traces the whole network, which takes a while: loading and planning both ask for it."""
    images = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    text = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))  # no device is touched
    params = jax.eval_shape(Network(config).init, key, images, text, text)["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}


def load_params(
    leaves: Mapping[str, Leaf], config: PaliGemmaConfig, dtype: DTypeLike, mesh: Mesh
) -> dict[str, Any]:
    """Reads every leaf, lays it for inference and puts it on a mesh.

    What has to be read at once goes first, the largest before the others, so that the peak of
    memory stays near the end size.

    Args:
        leaves, config: as `fitting`.
        dtype: to hold weights in; of eight bits, of matrices alone, and of the rest bfloat16.
        mesh: with the axis `model`.

    Raises:
        CheckpointError: as `fitting`.
    """
    fits = fitting(leaves, config)
    stored, rounded = _stored(dtype)

    def size(path: str) -> int:
        return prod(fits[path].layers[0].shape if fits[path].layers else fits[path].shape)

    params: dict[str, Any] = {}
    for path in sorted(fits, key=size, reverse=True):
        leaf = fits[path]
        held: Any = (layer.read(stored) for layer in leaf.layers)
        if not leaf.layers:
            held = leaf.read(stored)
        for name, packed in pack_weights(path, held, rounded=rounded):
            params[name] = placed(packed, weight_shardings(name, packed, mesh))
    tree: dict[str, Any] = traverse_util.unflatten_dict(params, sep="/")
    return tree


def abstract_params(
    config: PaliGemmaConfig, dtype: DTypeLike, mesh: Mesh | AbstractMesh
) -> dict[str, Any]:
    """What `load_params` would give, as `jax.ShapeDtypeStruct`; nothing is allocated."""
    stored, rounded = _stored(dtype)
    params: dict[str, Any] = {}
    for path, shape in expected_shapes(config).items():
        leaf = jax.ShapeDtypeStruct(shape, stored)
        laid = jax.eval_shape(
            lambda leaf, path=path: dict(pack_weights(path, leaf, rounded=rounded)), leaf
        )
        for name, packed in laid.items():
            params[name] = jax.tree.map(
                lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
                packed,
                weight_shardings(name, packed, mesh),
            )
    tree: dict[str, Any] = traverse_util.unflatten_dict(params, sep="/")
    return tree


def _stored(dtype: DTypeLike) -> tuple[np.dtype[Any], np.dtype[Any] | None]:
    """What is read as, and what matrices are then rounded to."""
    asked = np.dtype(dtype)
    return (np.dtype(jnp.bfloat16), asked) if asked.itemsize == 1 else (asked, None)


def fitting(leaves: Mapping[str, Leaf], config: PaliGemmaConfig) -> dict[str, Leaf]:
    """The leaves, unread, in the shapes of a configuration.

    A position embedding of another resolution is resized; anything else must fit.

    Raises:
        CheckpointError: parameters are missing, unexpected or misshapen; all are listed.
    """
    try:
        expected = expected_shapes(config)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"no PaliGemma has these shapes: {error}") from error
    position = "img/pos_embedding"
    problems = [f"- missing {p} {expected[p]}" for p in sorted(expected.keys() - leaves.keys())]
    problems += [
        f"- unexpected {p} {leaves[p].shape}" for p in sorted(leaves.keys() - expected.keys())
    ]
    problems += [
        f"- misshapen {p}: {leaves[p].shape} in the file, {shape} expected"
        for p, shape in sorted(expected.items())
        if p in leaves and leaves[p].shape != shape and p != position
    ]
    if problems:
        raise CheckpointError("parameters do not fit:\n" + "\n".join(problems))
    fits = dict(leaves)
    if leaves[position].shape != expected[position]:
        patches = expected[position][1]
        fits[position] = Leaf(
            expected[position],
            lambda dtype: resize_positions(leaves[position].read(dtype), patches),
        )
    return fits


def resize_positions(embedding: Array, num_patches: int) -> Array:
    """Resamples a position embedding [1, N, D] to another square grid, as the reference does.

    Corner-aligned bilinear, without antialiasing (big_vision `models/vit.py`, `resample_posemb`).
    """
    from scipy.ndimage import zoom

    old, new = round(embedding.shape[1] ** 0.5), round(num_patches**0.5)
    grid = embedding.astype(np.float32).reshape(old, old, -1)
    resized: Array = zoom(grid, (new / old, new / old, 1), order=1)
    return resized.reshape(1, num_patches, -1).astype(embedding.dtype)
