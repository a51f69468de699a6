"""Low-rank adapters (arXiv:2106.09685): which matrices can have one, fresh ones, merged ones.

The adapter of the weight at `path` is at `path_lora_a` and `path_lora_b` in the same parameter
tree. It is added as it is: the paper's alpha is the rank, so that the scale is 1.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

# Axes: L layer, G the two weights stored as one, D width, F mlp_dim, N query head, K key-value
# head, H head_dim, R rank. Each line is `a, b -> weight`.

_BLOCK = "img/Transformer/encoderblock"
_EQUATIONS = {
    "llm/layers/attn/q_einsum/w": "LDR,LRNH->LNDH",
    "llm/layers/attn/kv_einsum/w": "LGDR,LGRKH->LGKDH",
    "llm/layers/attn/attn_vec_einsum/w": "LNHR,LRD->LNHD",
    "llm/layers/mlp/gating_einsum": "LGDR,LGRF->LGDF",
    "llm/layers/mlp/linear": "LFR,LRD->LFD",
    **{
        f"{_BLOCK}/MultiHeadDotProductAttention_0/{name}/kernel": "LDR,LRNH->LDNH"
        for name in ("query", "key", "value")
    },
    f"{_BLOCK}/MultiHeadDotProductAttention_0/out/kernel": "LNHR,LRD->LNHD",
    f"{_BLOCK}/MlpBlock_0/Dense_0/kernel": "LDR,LRF->LDF",
    f"{_BLOCK}/MlpBlock_0/Dense_1/kernel": "LFR,LRD->LFD",
}


def adapter_shapes(
    shapes: Mapping[str, tuple[int, ...]], matrices: str, rank: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every adapter's leaves.

    Args:
        shapes: of the weights, by path.
        matrices: the pattern of the paths that get an adapter.
        rank: R.

    Raises:
        ValueError: the pattern matches nothing, or what can have no adapter.
    """
    matched = [path for path in shapes if re.fullmatch(matrices, path)]
    known = f"there are: {', '.join(_EQUATIONS)}"
    if not matched:
        raise ValueError(f"lora_matrices={matrices!r} matches no parameter; {known}")
    if unfit := [path for path in matched if path not in _EQUATIONS]:
        raise ValueError(
            f"lora_matrices={matrices!r} matches {unfit[0]}, which can have no adapter; {known}"
        )
    adapters = {}
    for path in matched:
        parts, weight = _EQUATIONS[path].split("->")
        size = dict(zip(weight, shapes[path], strict=True)) | {"R": rank}
        for name, axes in zip("ab", parts.split(","), strict=True):
            adapters[f"{path}_lora_{name}"] = tuple(size[axis] for axis in axes)
    return adapters


def fresh_adapters(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, jax.Array]:
    """Adapters that change nothing yet: `a` is normal with variance 1 / inputs, `b` is zero."""
    adapters = {}
    for number, path in enumerate(sorted(shapes)):
        shape = shapes[path]
        if path.endswith("_lora_b"):
            adapters[path] = jnp.zeros(shape)
            continue
        stacked = len(re.findall("[LG]", _EQUATIONS[path.removesuffix("_lora_a")].split(",")[0]))
        inputs = prod(shape[stacked:-1])
        key = jax.random.fold_in(jax.random.key(seed), number)
        adapters[path] = jax.random.normal(key, shape) * inputs**-0.5
    return adapters


def merge_adapters(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Plain weights: those that had an adapter are float32 `weight + a b`, the rest as they are.

    Args:
        flat: weights and adapters, by path.
    """
    merged = {
        path: leaf for path, leaf in flat.items() if not path.endswith(("_lora_a", "_lora_b"))
    }
    for path in merged:
        if f"{path}_lora_a" in flat:
            a, b = flat[f"{path}_lora_a"], flat[f"{path}_lora_b"]
            added = jnp.einsum(_EQUATIONS[path], a, b, precision="highest")
            merged[path] = merged[path].astype(jnp.float32) + added
    return merged
