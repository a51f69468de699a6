"""How many rows an actor's devices take at a time, reckoned from their memory."""

import jax

from paliflow.configs import AnnotateSpec
from paliflow.model import PaliGemma
from paliflow.model.cost import Memory, largest_batch, memory

_ON_A_CPU = 16
"""Rows at a time where nothing says how much memory there is; a CPU gains little from more."""


def fitting_batch(model: PaliGemma, spec: AnnotateSpec, prompt_tokens: int) -> tuple[int, Memory]:
    """Rows of a device batch, and what they are reckoned to take of each device.

    Args:
        model: as loaded.
        spec: may say the batch size.
        prompt_tokens: that prompts are padded to.

    Raises:
        ValueError: not even one row fits.
    """
    clip = spec.video.clip if spec.video else None
    shape = {
        "dtype": spec.dtype,
        "prompt_tokens": prompt_tokens,
        "new_tokens": spec.max_new_tokens,
        "frames": clip.frames if clip else 1,
        "model_parallel": spec.model_parallel,
        "data_parallel": model.mesh.shape["data"],
        "int8_cache": spec.int8_cache,
    }
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    width = spec.batch_size or _ON_A_CPU
    if limit and not spec.batch_size:
        width = largest_batch(model.config, limit, **shape)
        if not width:
            need = memory(model.config, batch=model.mesh.shape["data"], **shape)
            raise ValueError(
                f"a prompt of {prompt_tokens} tokens takes {need.total / 2**30:.1f} GiB of each "
                f"chip, which has {limit / 2**30:.1f}; lower it or raise model_parallel"
            )
    return width, memory(model.config, batch=width, **shape)
