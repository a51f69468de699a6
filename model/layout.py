"""How weights lie for inference: by layer, outputs before inputs, perhaps in 8 bits, sharded."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from paliflow.model.layers import Rows, quantise

# Axes: N query head, K key-value head, H head_dim, D width, F mlp_dim, V vocabulary, G the two
# weights that the reference stores as one.

_STACKS = ("llm/layers", "img/Transformer/encoderblock")
_RULES = {
    "embedder/input_embedding": ("VD", "V", "D"),
    "attn/q_einsum/w": ("NDH", "NH", "D"),
    "attn/kv_einsum/w": ("GKDH", "KH", "D"),
    "attn/attn_vec_einsum/w": ("NHD", "D", "NH"),
    "mlp/gating_einsum": ("GDF", "F", "D"),
    "mlp/linear": ("FD", "D", "F"),
    "query/kernel": ("DNH", "NH", "D"),
    "key/kernel": ("DNH", "NH", "D"),
    "value/kernel": ("DNH", "NH", "D"),
    "out/kernel": ("NHD", "D", "NH"),
    "Dense_0/kernel": ("DF", "F", "D"),
    "Dense_1/kernel": ("FD", "D", "F"),
}
"""The matrices, by the end of their path: the reference's axes, a layer's; outputs; inputs."""
_SPREAD = "NKFV"
"""Axes that lie along the mesh axis `model`, where they divide (arXiv:1909.08053)."""


def pack_weights(path: str, leaf: Any, *, rounded: DTypeLike | None) -> Iterator[tuple[str, Any]]:
    """One of the reference's parameters as inference wants it.

    A product of rows finds its inputs side by side, where a CPU is up to 1.6 times faster, and a
    layer of its own is read where it lies, where a slice of a stack would be copied at each token.

    Args:
        path: big_vision's.
        leaf: a NumPy or JAX array [*shape]; of a stack [L, *shape], or an iterable of its layers.
        rounded: what matrices are rounded to (`layers.quantise`), each output with a scale of its
            own; None for as they are.

    Yields:
        Its path, with `_<layer>` after a stack's name; and `Rows`, two of them where the reference
        stores two as one, or the layer's array. One layer after the other, so that no more need
        be in memory.
    """
    rule = _rule(path)

    def lay(layer: Any) -> Any:
        if rule is None:
            return layer
        source, outputs, inputs = rule
        if source[0] == "G":
            return tuple(_rows(each, source[1:], outputs, inputs, rounded) for each in layer)
        return _rows(layer, source, outputs, inputs, rounded)

    stack = next((stack for stack in _STACKS if path.startswith(f"{stack}/")), None)
    if stack is None:
        yield path, lay(leaf)
        return
    for number, layer in enumerate(leaf):
        yield path.replace(stack, f"{stack}_{number}", 1), lay(layer)


def weight_shardings(path: str, packed: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Where something of `pack` lies on a mesh with the axis `model`; replicated along others.

    Args:
        path: any with the same end.
        packed: an array, `Rows` or two of them, or their `jax.ShapeDtypeStruct`.
        mesh: of devices.

    Returns:
        The same tree of `NamedSharding`.
    """
    rule = _rule(path)
    size = mesh.shape["model"]

    def place(held: Any) -> Any:
        if not isinstance(held, Rows):
            return NamedSharding(mesh, PartitionSpec())
        # Whole heads lie on a device, or all do: of one key-value head each has a copy.
        assert rule
        rows, columns = (
            "model" if axes[0] in _SPREAD and sizes[0] % size == 0 else None
            for axes, sizes in ((rule[1], held.outputs), (rule[2], held.inputs))
        )
        weight: Any = NamedSharding(mesh, PartitionSpec(rows, columns))
        scale: Any = None
        if held.scale is not None:
            scale = NamedSharding(mesh, PartitionSpec(rows))
        return replace(held, weight=weight, scale=scale)

    return jax.tree.map(place, packed, is_leaf=lambda x: isinstance(x, Rows))


def _rule(path: str) -> tuple[str, str, str] | None:
    return next((rule for end, rule in _RULES.items() if path.endswith(f"/{end}")), None)


def _rows(weight: Any, source: str, outputs: str, inputs: str, rounded: DTypeLike | None) -> Rows:
    # A NumPy array's view, which is copied once, on its way to the device.
    laid = weight.transpose([source.index(axis) for axis in outputs + inputs])
    produced, taken = laid.shape[: len(outputs)], laid.shape[len(outputs) :]
    rows = laid.reshape(prod(produced), -1)
    values, scale = (rows, None) if rounded is None else _quantised(rows, rounded)
    return Rows(values, scale, produced, taken)


@partial(jax.jit, static_argnames="dtype")
def _quantised(rows: jax.Array, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
    values, scale = quantise(rows, (1,), dtype)
    return values, scale[:, 0]
