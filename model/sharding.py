"""Where arrays live: the local devices as one mesh, weights on all, each with its share of rows."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike


def local_mesh() -> Mesh:
    """All devices of this process along one axis, `data`."""
    return Mesh(np.array(jax.local_devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(x: ArrayLike, mesh: Mesh) -> jax.Array:
    """Spreads the leading axis over the devices; a batch that does not divide goes to them all."""
    whole = np.shape(x)[0] % mesh.size != 0
    spec = PartitionSpec(None if whole else "data")
    placed: jax.Array = jax.device_put(x, NamedSharding(mesh, spec))
    return placed
