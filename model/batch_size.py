"""How many rows an actor's devices take at a time, estimated from their memory."""

import os
from dataclasses import replace
from typing import NamedTuple

import jax

from paliflow.configs import AnnotateSpec, PromptSpec
from paliflow.configs.base import SpecError
from paliflow.model import PaliGemma, PaliGemmaConfig
from paliflow.model.cost import HEADROOM, Memory, Shape, largest_batch, memory

_ON_A_CPU = 16
"""Rows at a time where nothing says how much memory there is; a CPU gains little from more."""
_OF_A_CPU = 0.5
"""Of its memory, what an actor may take; others are there, too."""
_AHEAD = 7
"""Device batches that are asked before the first is answered. A CPU runs some side by side, and
does 7 to 10 % more with five than with one (`benchmarks/pipeline.py`, one actor)."""


def shape_of(spec: AnnotateSpec, prompt_tokens: int) -> Shape:
    """What a spec asks, of prompts padded to so many tokens, on one copy of the model."""
    clip = spec.video.clip if spec.video else None
    return Shape(
        dtype=spec.dtype,
        prompt_tokens=prompt_tokens,
        new_tokens=spec.max_new_tokens,
        frames=clip.frames if clip else 1,
        int8_cache=spec.int8_cache,
        beams=spec.sampling.beams,
        model_parallel=spec.model_parallel,
        choices=any(isinstance(p, PromptSpec) and not p.closed for p in spec.prompts),
    )


def largest_of(config: PaliGemmaConfig, spec: AnnotateSpec, shape: Shape, hbm_bytes: float) -> int:
    """As `largest_batch`: a batch never holds more than a shard, whose end it does not cross."""
    if spec.video:  # whose shards are of videos, which have any number of frames
        return largest_batch(config, shape, hbm_bytes)
    return largest_batch(config, shape, hbm_bytes, at_most=spec.shard_size)


class Fitting(NamedTuple):
    """How a device is filled."""

    rows: int
    """Of a device batch, on all devices."""
    memory: Memory
    """What they are estimated to take of each device."""
    caches: int
    """Of so many device batches there is room, at most 8: as long as it lasts, the host goes ahead
    of the device."""


def fitting_batch(model: PaliGemma, spec: AnnotateSpec, prompt_tokens: int) -> Fitting:
    """As many rows as fit, or as the spec says.

    Args:
        model: as loaded.
        spec: may say the batch size.
        prompt_tokens: that prompts are padded to.

    Raises:
        ValueError: not even one row fits.
        SpecError: not as many rows fit as the spec says.
    """
    copies = model.mesh.shape["data"]
    shape = replace(
        shape_of(spec, prompt_tokens),
        data_parallel=copies,
        backend=model.backend,
    )
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    width = spec.batch_size or _ON_A_CPU
    if limit and not spec.batch_size:
        width = largest_of(model.config, spec, shape, limit)
        if not width:
            need = memory(model.config, shape, copies)
            raise ValueError(
                f"a prompt of {prompt_tokens} tokens takes {need.total / 2**30:.1f} GiB of each "
                f"chip, which has {limit / 2**30:.1f}; lower it or raise model_parallel"
            )
    need = memory(model.config, shape, width)
    there = limit or host_memory()
    if need.total > there:
        raise SpecError(
            f"batch_size={width} with max_new_tokens={spec.max_new_tokens} and prompts of "
            f"{prompt_tokens} tokens takes {need.total / 2**30:.1f} GiB of each device, which has "
            f"{there / 2**30:.1f}; lower them"
        )
    if model.mesh.is_multi_process:  # all of its processes have to run out of memory at once
        return Fitting(width, need, 1)
    room = (HEADROOM if limit else _OF_A_CPU) * there - need.total
    ahead = int(room // (need.cache + need.logits))
    return Fitting(width, need, 1 + min(max(ahead, 0), _AHEAD))


def host_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
