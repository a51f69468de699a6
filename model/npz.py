"""big_vision's .npz weight files: flat `/` paths, with or without a prefix, bfloat16 as |V2."""

import io
import zipfile
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from paliflow.model.files import reading, require_plausible_size
from paliflow.model.weights import Array, Leaf

_PREFIXES = ("params/", "opt/target/")
_STORED_BFLOAT16 = np.dtype("V2")
_ENCRYPTED = 1
_HEADER = 65_536
"""Bytes of an array in which its header has to end."""


def read_npz(path: Path) -> dict[str, Leaf]:
    """The leaves of a file; nothing but headers is read yet.

    Raises:
        CheckpointError: not an .npz file, or one of something else than plain numbers.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with reading(path, ".npz file"), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        require_plausible_size(sum(entry.file_size for entry in entries), path.stat().st_size)
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename or name in shapes:
                raise ValueError(
                    f"it holds {entry.filename!r}, which is no array or is there twice"
                )
            if entry.flag_bits & _ENCRYPTED:
                raise ValueError(f"{name} is encrypted")
            shapes[name] = _shape(archive, entry)
    prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in shapes)), "")
    return {
        name.removeprefix(prefix): Leaf(shape, partial(_read, path, name))
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def _shape(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, ...]:
    """The shape of an array, as its header says and its size confirms."""
    with archive.open(entry) as file:
        start = io.BytesIO(file.read(_HEADER))  # numpy would read as much as a header says it has
    version = np.lib.format.read_magic(start)
    header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = header(start)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds pickled objects")
    if dtype.kind not in "fiu" and dtype != _STORED_BFLOAT16:
        raise ValueError(f"{entry.filename} holds {dtype}, no numbers")
    if min(shape, default=0) < 0 or start.tell() + prod(shape) * dtype.itemsize != entry.file_size:
        raise ValueError(f"{entry.filename} has {entry.file_size} bytes, its header says {shape}")
    return shape


def _read(path: Path, name: str, dtype: np.dtype[Any]) -> Array:
    with reading(path, ".npz file"), np.load(path, allow_pickle=False) as archive:
        array: Array = archive[name]
    if array.dtype == _STORED_BFLOAT16:
        array = array.view(jnp.bfloat16)
    return array.astype(dtype, copy=False)


def write_npz(path: Path, params: Mapping[str, Any]) -> None:
    """Writes a parameter tree under the names and the `params/` prefix of published files."""
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    arrays: dict[str, Any] = {f"params/{name}": np.asarray(leaf) for name, leaf in flat.items()}
    np.savez(path, allow_pickle=False, **arrays)
