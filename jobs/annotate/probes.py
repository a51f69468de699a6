"""What `paliflow doctor` has nodes of a cluster tell: packages, storage, devices, speed.

This module imports neither JAX nor the model: a probe sets its environment first, as actors do.
"""

import io
import platform
import socket
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import ray

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.jobs.fleet.process import set_environment

PACKAGES = ("paliflow", "ray", "jax", "jaxlib", "flax", "pyarrow", "sentencepiece", "av")
"""Without one of these a job does not run."""
_SIDE = 4096
_ROUNDS = 10
IMAGES, PROMPT_TOKENS, NEW_TOKENS = 64, 16, 20
"""Of the batch whose speed is measured: images a device, tokens a prompt and an answer."""


@dataclass(frozen=True)
class Node:
    """What a node says of itself."""

    host: str
    id: str
    python: str
    packages: dict[str, str | None]
    """By name, None where there is none."""
    storage: str | None = None
    """Why it could not write, read and delete a file there; None if it could or was not asked."""


@dataclass(frozen=True)
class Devices:
    """What a process with some chips of a node finds."""

    host: str
    asked: dict[str, float]
    """Ray resources."""
    error: str | None = None
    """Why it could not compute."""
    kind: str = ""
    """JAX's name of the devices."""
    chips: int = 0
    flops: float = 0.0
    """Of bfloat16 products, a second, on the first device."""
    images_per_second: float | None = None
    """Of a model with random weights on all its chips; None if not asked for."""


def look(where: str | None) -> Node:
    """Tells of the node that this runs on.

    Args:
        where: a folder or `gs://` prefix to write a small file to, read it and delete it.
    """
    context = ray.get_runtime_context()
    return Node(
        host=socket.gethostname(),
        id=context.get_node_id(),
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        storage=_tried(f"{where.rstrip('/')}/_doctor-{context.get_node_id()}") if where else None,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tried(uri: str) -> str | None:
    content = b"paliflow doctor"
    try:
        storage.overwrite(uri, io.BytesIO(content))
        found = storage.read_bytes(uri)
        storage.delete(uri)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None if found == content else "it gave back other bytes than were written"


class DeviceProbe:
    """An actor that looks at the chips that it holds."""

    def find(self, asked: dict[str, float], model: str | None) -> Devices:
        """Sets the environment, then has JAX find devices and multiply matrices.

        Args:
            asked: the Ray resources that it holds.
            model: a published model whose speed is measured with random weights, if any.
        """
        host = socket.gethostname()
        try:
            if "TPU" in asked:
                set_environment(asked["TPU"])
            return self._found(host, asked, model)
        except SpecError as error:
            return Devices(host, asked, error=str(error))
        except Exception as error:  # whatever a platform that nobody has tried may answer
            return Devices(host, asked, error=f"{type(error).__name__}: {error}")

    def _found(self, host: str, asked: dict[str, float], model: str | None) -> Devices:
        import jax

        from paliflow.jobs.fleet.accelerators import (
            chips,
            require_accelerators,
            require_mesh,
        )

        require_accelerators("accelerators_per_actor", asked)
        require_mesh("accelerators_per_actor", None)
        flops = _flops()
        devices = jax.local_devices()
        speed = _images_per_second(model) if model else None
        return Devices(host, asked, None, devices[0].device_kind, chips(devices), flops, speed)


def _flops() -> float:
    """
    Raises:
        SpecError: the device multiplies wrongly.
    """
    import jax
    import jax.numpy as jnp

    ones = jnp.full((_SIDE, _SIDE), 0.5, jnp.bfloat16)
    product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32))
    result = product(ones, ones)
    if not bool((result == _SIDE / 4).all()):
        raise SpecError("a product of matrices of 0.5 is wrong: the device is broken")
    begun = time.monotonic()
    for _ in range(_ROUNDS):
        result = product(ones, ones)
    result.block_until_ready()
    return 2 * _SIDE**3 * _ROUNDS / (time.monotonic() - begun)


def _images_per_second(model: str) -> float:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from paliflow.model import VARIANTS, PaliGemma
    from paliflow.model.sharding import local_mesh
    from paliflow.model.weights import Leaf, expected_shapes, load_params
    from paliflow.model.xla import backend_of_mesh

    def leaf(shape: tuple[int, ...]) -> Leaf:
        def made(dtype: Any) -> Any:
            return (0.02 * jax.random.normal(jax.random.key(0), shape)).astype(dtype)

        return Leaf(shape, made)

    config, mesh = VARIANTS[model], local_mesh()
    leaves = {path: leaf(shape) for path, shape in expected_shapes(config).items()}
    weights = load_params(leaves, config, jnp.bfloat16, mesh)
    asked = PaliGemma(config, weights, mesh, backend_of_mesh(mesh))
    rows = IMAGES * mesh.size
    images = np.zeros((rows, config.image_size, config.image_size, 3), np.uint8)
    prompt = np.ones((rows, PROMPT_TOKENS), np.int32)
    options = {"max_new_tokens": NEW_TOKENS, "eos_id": None}

    def answered() -> float:
        begun = time.monotonic()
        made = asked.generate(images, prompt, np.ones_like(prompt, bool), **options)
        jax.block_until_ready(made)
        return time.monotonic() - begun

    answered()  # which compiles
    return rows / min(answered() for _ in range(3))
