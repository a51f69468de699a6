"""Where arrays live: rows and, in training, large weights along `data`; in inference, a model too
large for one device along `model`."""

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

T = TypeVar("T")

SHARDED_BYTES = 4 * 2**20
"""Smaller leaves are on every device: gathering them would cost more than holding them."""


def local_mesh(model_parallel: int = 1) -> Mesh:
    """All devices of this process: copies of the model along `data`, its pieces along `model`.

    Raises:
        ValueError: they do not divide into copies.
    """
    return inference_mesh(jax.local_devices(), model_parallel)


def inference_mesh(devices: Sequence[Any], model_parallel: int) -> Mesh:
    """As `local_mesh`, of any devices."""
    if len(devices) % model_parallel:
        raise ValueError(
            f"model_parallel={model_parallel}: {len(devices)} devices do not divide into models "
            f"over {model_parallel} each"
        )
    return Mesh(np.array(devices).reshape(-1, model_parallel), ("data", "model"))


def placed(x: T, shardings: Any) -> T:
    """Puts a tree of arrays where its tree of shardings says.

    Of a mesh of several processes, each puts its devices' part of what all of them have.

    Args:
        x: a tree of NumPy arrays, or of JAX's; those of several processes lie there already.
        shardings: one `NamedSharding` for all leaves, or a tree of them.
    """
    if isinstance(shardings, NamedSharding):
        one = shardings
        shardings = jax.tree.map(lambda _: one, x)

    def put(leaf: Any, sharding: NamedSharding) -> Any:
        of_all = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        if of_all or sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        held = np.asarray(leaf)
        return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])

    there: T = jax.tree.map(put, x, shardings)
    return there


def readable(results: T, mesh: Mesh) -> T:
    """Results that this process can read: of a mesh of several processes, each gets them all."""
    if not mesh.is_multi_process:
        return results
    gathered: T = _gatherer(mesh)(results)
    return gathered


@cache
def _gatherer(mesh: Mesh) -> Any:
    return jax.jit(lambda results: results, out_shardings=replicated(mesh))


def global_mesh() -> Mesh:
    """All devices of all processes along one axis, `data`; a process's own lie side by side."""
    return Mesh(np.array(jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def device_rows(batch: int, copies: int) -> int:
    """How many of a batch's rows each copy of the model has: all, if the batch does not divide."""
    return batch if batch % copies else batch // copies


def split_rows(x: ArrayLike, mesh: Mesh) -> jax.Array:
    """Spreads the leading axis over the devices as `device_rows` says."""
    batch = np.shape(x)[0]
    whole = device_rows(batch, mesh.shape["data"]) == batch
    spec = PartitionSpec(None if whole else "data")
    return placed(x, NamedSharding(mesh, spec))  # type: ignore[return-value]


def by_rows(mesh: Mesh) -> NamedSharding:
    """The leading axis spread over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def constrain_activations(x: jax.Array) -> jax.Array:
    """Keeps activations [B, ...] with their rows while a step is traced under a mesh.

    Left to itself, XLA may cut them along their width, as the weights are, and then gathers
    activations at every product where it should gather weights.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    kept: jax.Array = jax.lax.with_sharding_constraint(x, PartitionSpec("data"))
    return kept


def chunked_rows(x: jax.Array, most: int) -> jax.Array:
    """Cuts [V, ...] to n chunks of at most `most` rows, [n, C, ...]; to one if V does not divide.

    Where a mesh divides V, each device has as many rows of every chunk, and those that `fsdp` gives
    it, so that a chunk is gathered by itself and a device has no row of another before that.
    """
    mesh, rows = jax.sharding.get_abstract_mesh(), len(x)
    places = 1 if mesh.empty or rows % mesh.shape["data"] else mesh.shape["data"]
    fewest = -(-rows // most)
    # Four times as many at most: products of few rows are slow.
    count = next((n for n in range(fewest, 4 * fewest) if rows % (n * places) == 0), None)
    if count is None:
        return x[None]
    pieces = x.reshape(places, count, -1, *x.shape[1:]).swapaxes(0, 1)
    chunks = pieces.reshape(count, -1, *x.shape[1:])
    if places == 1:
        return chunks
    kept: jax.Array = jax.lax.with_sharding_constraint(chunks, PartitionSpec(None, "data"))
    return kept


def fsdp(shapes: T, mesh: Mesh) -> T:
    """Spreads each large leaf over all devices along the largest axis that divides among them.

    Args:
        shapes: a tree of arrays or `jax.ShapeDtypeStruct`.
        mesh: with the one axis `data`.

    Returns:
        The same tree of `NamedSharding`; replicated where no axis divides or the leaf is small.
    """

    def rule(leaf: Any) -> NamedSharding:
        dividing = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not dividing or leaf.size * leaf.dtype.itemsize < SHARDED_BYTES:
            return replicated(mesh)
        along = max(dividing, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * along, "data"))

    spread: T = jax.tree.map(rule, shapes)
    return spread


def global_batch(rows: T, mesh: Mesh) -> T:
    """Joins every process's rows to the arrays of one batch, spread over all devices.

    Args:
        rows: a tree of NumPy arrays [b, ...]; all processes have as many, each its own.
        mesh: of all processes.

    Raises:
        ValueError: the rows do not divide among this process's devices.
    """
    places = len(mesh.local_devices)
    for leaf in jax.tree.leaves(rows):
        if len(leaf) % places:
            raise ValueError(
                f"a batch of {len(leaf)} examples in this process does not divide among its "
                f"{places} devices; make the batch size a multiple of {mesh.size}"
            )
    place = by_rows(mesh)
    joined: T = jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), rows)
    return joined
