"""An actor's devices, checked, and its model on them: of one process, or of all of a slice's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from paliflow.configs import AnnotateSpec
from paliflow.configs.chips import catalogue
from paliflow.configs.folders import require_closed
from paliflow.jobs.fleet.accelerators import require_accelerators, require_mesh
from paliflow.jobs.registry.checkpoints import loading
from paliflow.model import PaliGemma


def devices_of_actor(spec: AnnotateSpec) -> Sequence[Any]:
    """JAX's devices that an actor's model is on: this process's own, or those of a whole slice.

    Raises:
        SpecError: they are not those of `accelerators_per_actor`, form another mesh than the
            spec says, or have no products of its dtype.
    """
    require_accelerators("accelerators_per_actor", spec.accelerators_per_actor)
    slice_ = spec.actor_slice
    require_mesh("accelerators_per_actor", spec.actor_topology, slice_.hosts if slice_ else 1)
    devices = jax.devices() if slice_ else jax.local_devices()
    if chip := catalogue().of_device(devices[0].device_kind):
        chip.flops(spec.dtype)
    return devices


def load_model(path: str | Path, spec: AnnotateSpec, devices: Sequence[Any]) -> PaliGemma:
    """Loads the weights at a local path.

    Raises:
        SpecError: others can write to the compilation cache.
        CheckpointError: as `PaliGemma.from_checkpoint`.
    """
    if spec.compilation_cache:
        _use_compilation_cache(spec.compilation_cache)
    own = {"query_pre_attn_scalar", "image_size"}
    return PaliGemma.from_checkpoint(
        path,
        dtype=spec.dtype,
        model_parallel=spec.model_parallel,
        devices=devices,
        **spec.model_dump(include=own, exclude_none=True),
    )


def _use_compilation_cache(folder: str) -> None:
    """Has JAX keep compiled programs in a folder.

    Raises:
        SpecError: others can write to it.
    """
    with loading("compilation_cache", folder):
        if not folder.startswith("gs://"):
            require_closed(Path(folder))
    jax.config.update("jax_compilation_cache_dir", folder)
