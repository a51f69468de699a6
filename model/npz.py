"""big_vision's .npz weight files: flat `/` paths, with or without a prefix, bfloat16 as |V2."""

import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from paliflow.model.weights import Array, CheckpointError, Leaf

_PREFIXES = ("params/", "opt/target/")


def read_npz(path: Path) -> dict[str, Leaf]:
    """The leaves of a file; nothing but headers is read yet.

    Raises:
        CheckpointError: not an .npz file, or one with pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            shapes = {name: _shape(archive, name) for name in names}
    except (zipfile.BadZipFile, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable .npz file: {error}") from None
    prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in names)), "")
    return {
        name.removeprefix(prefix): Leaf(shapes[name], partial(_read, path, name))
        for name in names
        if name.startswith(prefix)
    }


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)
        if dtype.hasobject:
            raise ValueError(f"{name} holds pickled objects")
        return shape


def _read(path: Path, name: str, dtype: np.dtype[Any]) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        array: Array = archive[name]
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        array = array.view(jnp.bfloat16)
    return array.astype(dtype, copy=False)


def write_npz(path: Path, params: Mapping[str, Any]) -> None:
    """Writes a parameter tree under the names and the `params/` prefix of published files."""
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    arrays: dict[str, Any] = {f"params/{name}": np.asarray(leaf) for name, leaf in flat.items()}
    np.savez(path, allow_pickle=False, **arrays)
