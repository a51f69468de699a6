"""Compiles inference for a TPU slice with the real compiler, on a machine without one."""

import os
import re
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from paliflow.model.config import PaliGemmaConfig, TextConfig
from paliflow.model.cost import Shape
from paliflow.model.gemma import Caches, quantised
from paliflow.model.network import Network, apply
from paliflow.model.sharding import device_rows, inference_mesh
from paliflow.model.slices import sliced, slices
from paliflow.model.weights import abstract_params

_COLLECTIVE = re.compile(
    r" (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


@dataclass(frozen=True)
class Program:
    """What the compiler says of a program, of each chip."""

    name: str
    arguments: int  # bytes; what is given back in their place included
    temporaries: int  # bytes, the program's own code included
    outputs: int  # bytes, beyond the arguments' place
    flops: float
    accessed: float  # bytes
    collectives: int
    seconds: float  # to compile

    @property
    def memory(self) -> int:
        """Bytes of HBM."""
        return self.arguments + self.temporaries + self.outputs


def slice_devices(topology: str) -> list[Any]:
    """The devices of a slice such as `v5e:2x4`, described and not there.

    Needs the package `libtpu` (the extra `tpu-aot`). Call it before anything else touches JAX's
    devices: it sets what the package reads from the environment.

    Raises:
        ValueError: the compiler is missing or knows no such slice.
    """
    jax.config.update("jax_platforms", "cpu")
    one = {"chips_per_host_bounds": (1, 1, 1)} if topology.endswith(":1x1") else {}
    os.environ |= {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is touched, so none is locked
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **one)
    except Exception as error:
        raise ValueError(
            f"{topology!r} cannot be compiled for: {error}; it takes the extra `tpu-aot` and a "
            "slice such as v5e:2x4 or v6e:2x2"
        ) from error
    return list(described.devices)


def compile_inference(
    config: PaliGemmaConfig, shape: Shape, topology: str, batch: int
) -> list[Program]:
    """Compiles vision tower with prefill, which a run has apart, and a step of decoding.

    The compiler counts a loop once: where rows are cut to slices, what it says of one counts for
    each.

    Args:
        config: of the model.
        shape: of what it is asked; there are as many copies as the slice holds.
        topology: of the slice.
        batch: rows, on the whole slice.

    Raises:
        ValueError: as `slice_devices`, or the slice does not divide into models.
    """
    mesh = inference_mesh(slice_devices(topology), shape.model_parallel)
    rows, network = NamedSharding(mesh, PartitionSpec("data")), Network(config)
    params = abstract_params(config, shape.dtype, mesh)

    def row(each: tuple[int, ...], of: DTypeLike) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *each), of, sharding=rows)

    pixels = (config.image_size, config.image_size, 3)
    images = row(pixels if shape.frames == 1 else (shape.frames, *pixels), jnp.uint8)
    prompt, mask = row((shape.prompt_tokens,), jnp.int32), row((shape.prompt_tokens,), jnp.bool_)
    length = shape.frames * config.vision.num_patches + shape.prompt_tokens
    cut = slices(device_rows(batch, mesh.shape["data"]), length)
    read = partial(_read, network, shape.int8_cache, cut)
    _, filled = jax.eval_shape(read, params, images, prompt, mask)
    cache = _abstract_cache(filled, length + shape.new_tokens, config.text, mesh)
    token = row((), jnp.int32)
    program = compiled("vision and prefill", jax.jit(read).lower(params, images, prompt, mask))
    step = jax.jit(partial(_step, network), donate_argnums=3)
    return [
        replace(program, flops=cut * program.flops, accessed=cut * program.accessed),
        compiled("step of decoding", step.lower(params, token, token, cache)),
    ]


def _read(network: Network, int8_cache: bool, cut: int, params: Any, *rows: jax.Array) -> Any:
    """Vision tower and prefill, in `cut` slices of the rows."""

    def answer(images: jax.Array, prompt: jax.Array, mask: jax.Array) -> Any:
        tokens = apply(network, params, "encode_images", images)
        logits, cache = apply(network, params, "prefill", tokens, prompt, mask)
        return logits, quantised(cache) if int8_cache else cache

    return sliced(answer, cut, *rows)


def _step(
    network: Network, params: Any, token: jax.Array, position: jax.Array, cache: Caches
) -> Any:
    """The last token that the cache has a slot for, which sees all before it."""
    slots = jax.tree.leaves(cache)[0].shape[1]
    seen = jnp.ones((len(token), slots), bool)
    return apply(network, params, "decode", token, position, seen, cache, slots - 1)


def _abstract_cache(filled: Caches, slots: int, config: TextConfig, mesh: Mesh) -> Caches:
    """The cache that prefill leaves, with more slots and spread over the mesh."""
    heads = "model" if config.num_kv_heads % mesh.shape["model"] == 0 else None
    place = NamedSharding(mesh, PartitionSpec("data", None, heads))

    def widened(x: jax.Array) -> jax.ShapeDtypeStruct:
        shape = (x.shape[0], slots, *x.shape[2:])
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=place)

    cache: Caches = jax.tree.map(widened, filled)
    return cache


def compiled(name: str, lowered: jax.stages.Lowered) -> Program:
    """Compiles, and asks the compiler what it made of it."""
    started = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - started
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return Program(
        name=name,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        flops=cost["flops"],
        accessed=cost["bytes accessed"],
        collectives=len(_COLLECTIVE.findall(compiled.as_text() or "")),
        seconds=seconds,
    )
