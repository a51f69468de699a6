"""Paliflow's own checkpoints: a parameter tree as an Orbax folder."""

from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from paliflow.model.files import reading, require_plausible_size
from paliflow.model.weights import Leaf


def write_orbax(folder: Path, params: Mapping[str, Any]) -> None:
    """Writes a parameter tree; the folder must not exist yet."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), dict(params))


def read_orbax(folder: Path) -> dict[str, Leaf]:
    """The leaves of a folder that `write_orbax` wrote.

    Raises:
        CheckpointError: not an Orbax folder.
    """
    with reading(folder, "Orbax folder"):
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.metadata(folder.absolute()).item_metadata.tree
        shapes = {path: tuple(leaf.shape) for path, leaf in _flatten(tree).items()}
        # Chunks that are missing are filled up: a few bytes of JSON declare any size.
        stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        require_plausible_size(sum(map(prod, shapes.values())), stored)

    @cache
    def restored(dtype: np.dtype[Any]) -> dict[str, Any]:
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = {
            path: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
            for path, shape in shapes.items()
        }
        with reading(folder, "Orbax folder"), ocp.StandardCheckpointer() as checkpointer:
            target = traverse_util.unflatten_dict(wanted, sep="/")
            return _flatten(checkpointer.restore(folder.absolute(), target))

    def leaf(path: str) -> Leaf:
        return Leaf(shapes[path], lambda dtype: restored(dtype).pop(path))

    return {path: leaf(path) for path in shapes}


def _flatten(tree: Any) -> dict[str, Any]:
    flat: dict[str, Any] = traverse_util.flatten_dict(tree, sep="/")
    return flat
