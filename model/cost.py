"""What inference takes of each device: bytes, operations and, by a roofline, seconds."""

from dataclasses import astuple, dataclass
from functools import cache
from math import prod

import jax
from jax.sharding import AbstractMesh

from paliflow.configs.chips import Chip, Dtype
from paliflow.model.attention import blocks_of
from paliflow.model.choices import CHOICE_NODES
from paliflow.model.config import PaliGemmaConfig
from paliflow.model.sharding import device_rows
from paliflow.model.slices import slices
from paliflow.model.weights import abstract_params
from paliflow.model.xla import ANY, Backend

# Axes: B rows on a device, P patch, T image tokens and prompt, S slot of the cache,
# D width, F mlp_dim, N query head, K key-value head, H head_dim, V vocabulary.

_LOGITS = 3
"""Copies of the logits: as they come, as log-probabilities, and what chooses among them."""
HEADROOM = 0.9
"""Of its memory, what a device is filled to: these are estimates, programs take room themselves,
and what is free is in pieces."""


@dataclass(frozen=True)
class Shape:
    """What a model is asked, as far as it decides what that takes."""

    dtype: Dtype
    """As `PaliGemma.from_checkpoint` takes it."""
    prompt_tokens: int
    """What prompts are padded to."""
    new_tokens: int
    """Generated at most; the cache has room for them all."""
    frames: int = 1
    """Of an input."""
    int8_cache: bool = False
    """Keys and values in int8."""
    beams: int = 1
    """Live hypotheses of a row, each with a cache."""
    model_parallel: int = 1
    """Devices that share one copy of the weights."""
    data_parallel: int = 1
    """Copies."""
    choices: bool = False
    """Whether some prompts have fixed choices, whose logits go through in blocks of nodes."""
    backend: Backend = ANY
    """What is chosen for the devices: how large a slice is, and a block of attention."""


@dataclass(frozen=True)
class Memory:
    """Bytes of each device."""

    parameters: int
    cache: int
    logits: int
    activations: int
    """The largest transient of the vision tower, of prefill and of growing the cache."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))


@dataclass(frozen=True)
class Phase:
    """What one program takes of each device."""

    matmul_flops: float
    """Operations with weights, for one row."""
    attention: float
    """Operations of attention, for one row; never in eight bits."""
    weights: int
    """Bytes that are read once for a slice of the rows."""
    cache: int
    """Bytes that are read for one row."""
    tokens: int
    """Of one row: how many rows are a slice."""

    @property
    def flops(self) -> float:
        """All operations for one row."""
        return self.matmul_flops + self.attention

    def seconds(self, chip: Chip, dtype: Dtype, rows: int) -> float:
        """How long a device takes for so many rows: as long as computing or as reading, whichever
        is longer."""
        exact = chip.flops("float32" if dtype == "float32" else "bfloat16")
        computing = rows * (self.matmul_flops / chip.flops(dtype) + self.attention / exact)
        weights = slices(rows, self.tokens) * self.weights
        reading = (weights + rows * self.cache) / chip.bandwidth / 1e9
        reached = chip.efficiency
        return max(computing / reached.compute, reading / reached.bandwidth)


@dataclass(frozen=True)
class Work:
    """What a batch takes of each device, in the dtype of its weights."""

    dtype: Dtype
    vision: Phase
    """Once an input, of all its frames."""
    prefill: Phase
    """Once a prompt; it gives the first token."""
    decode: Phase
    """Once for each further token."""

    def seconds(self, chip: Chip, rows: int, prompts: float, new_tokens: int) -> float:
        """How long a batch takes.

        Args:
            chip: the device.
            rows: of the batch, on each device.
            prompts: of each input.
            new_tokens: that are generated; the longest answer of a batch decides.
        """
        vision, prefill, decode = (
            phase.seconds(chip, self.dtype, rows)
            for phase in (self.vision, self.prefill, self.decode)
        )
        return vision + prompts * (prefill + (new_tokens - 1) * decode)


def memory(config: PaliGemmaConfig, shape: Shape, batch: int) -> Memory:
    """What a batch needs of each device while it is answered; nothing is allocated.

    Parameters are exact, the rest is what the largest arrays are estimated to be.

    Args:
        config: of the model.
        shape: of what it is asked.
        batch: rows of all devices; one that does not divide among them is on each of them whole.
    """
    vision, text = config.vision, config.text
    rows = device_rows(batch, shape.data_parallel)
    item = _itemsize(shape.dtype)
    patches = shape.frames * vision.num_patches
    length = patches + shape.prompt_tokens
    slots = length + shape.new_tokens - 1

    def transient(
        rows: int, length: int, width: int, hidden: int, heads: int, head_dim: int
    ) -> int:
        # A layer's input, its sum and what is normalised: 3 [B, T, D]. Then the larger of
        # query, key, value and mixture, 4 [B, T, N, H], with logits and weights in float32,
        # 2 [B, N, Q, T]; and of the products that are mlp_dim wide in float32, 2 [B, T, F].
        queries = -(-length // blocks_of(length, shape.backend))
        heads, hidden = (_share(size, shape.model_parallel) for size in (heads, hidden))
        attending = 4 * length * heads * head_dim * item + 2 * 4 * heads * queries * length
        return rows * (3 * length * width * item + max(attending, 2 * 4 * length * hidden))

    slice_rows = rows // slices(rows, patches, shape.backend.slice_tokens)
    tower = transient(
        slice_rows * shape.frames,
        *(vision.num_patches, vision.width, vision.mlp_dim),
        *(vision.num_heads, vision.width // vision.num_heads),
    )
    # The images themselves, uint8 [B, F, size, size, 3], twice where they are cut to slices, of
    # which one is float32; and the tokens made of them.
    tower += (2 * rows + 4 * slice_rows) * shape.frames * 3 * config.image_size**2
    tokens = rows * patches * text.width * item
    prefill = transient(
        rows // slices(rows, length, shape.backend.slice_tokens),
        *(length, text.width, text.mlp_dim, text.num_heads, text.head_dim),
    )
    nodes = max(rows, CHOICE_NODES // shape.data_parallel) if shape.choices else 0
    # The prompt's keys and values are copied to where the answer's have room.
    slot = _slot_bytes(config, shape)
    return Memory(
        parameters=sum(leaf.bytes for leaf in _leaves(config, shape.dtype, shape.model_parallel)),
        # A beam search orders the caches of its hypotheses anew, out of place.
        cache=rows * slots * slot * (2 * shape.beams if shape.beams > 1 else 1),
        logits=_LOGITS * 4 * max(rows * shape.beams, nodes) * text.vocab_size,
        activations=tokens + max(tower, prefill, rows * length * slot),
    )


def largest_batch(
    config: PaliGemmaConfig, shape: Shape, hbm_bytes: float, at_most: int = 512
) -> int:
    """The largest batch, a power of two on each device, that fills 0.9 of the memory or less.

    Args:
        config: of the model.
        shape: of what it is asked.
        hbm_bytes: memory of each device.
        at_most: rows of all devices, but at least one on each.

    Returns:
        Rows of all devices; 0 if not even one fits on each.
    """
    batch, larger = 0, shape.data_parallel
    while larger <= max(at_most, shape.data_parallel):
        if memory(config, shape, larger).total > HEADROOM * hbm_bytes:
            break
        batch, larger = larger, 2 * larger
    return batch


def work(config: PaliGemmaConfig, shape: Shape) -> Work:
    """What an input takes of each of the devices that share one copy of the weights.

    Matrix products and attention count, two operations for each multiplication; norms, softmax
    and what devices exchange do not.
    """
    vision, text = config.vision, config.text
    patches = shape.frames * vision.num_patches
    length = patches + shape.prompt_tokens
    slots = length + shape.new_tokens - 1
    leaves = _leaves(config, shape.dtype, shape.model_parallel)
    tower = [leaf for leaf in leaves if leaf.path.startswith("img/")]
    decoder = [leaf for leaf in leaves if leaf.path.startswith("llm/")]
    last = f"llm/layers_{text.depth - 1}/"

    def prefilled(leaf: _Leaf) -> int:
        # The last layer makes keys and values of all positions, and the rest of one; one is
        # scored.
        one = leaf.path.startswith(last) and "/kv_einsum/" not in leaf.path
        return 1 if one or "/embedder/" in leaf.path else length

    over = shape.model_parallel
    vision_heads = _share(vision.num_heads, over) * (vision.width // vision.num_heads)
    text_heads = _share(text.num_heads, over) * text.head_dim
    # Every query with every key, for logits and for the mixture.
    seen = vision.depth * patches * vision.num_patches
    prefill_seen = (text.depth - 1) * length**2 + length
    return Work(
        shape.dtype,
        vision=Phase(
            matmul_flops=sum(2 * leaf.multiplications for leaf in tower) * patches,
            attention=4 * vision_heads * seen,
            weights=sum(leaf.bytes for leaf in tower),
            cache=0,
            tokens=patches,
        ),
        prefill=Phase(
            matmul_flops=sum(2 * leaf.multiplications * prefilled(leaf) for leaf in decoder),
            attention=4 * text_heads * prefill_seen,
            weights=sum(leaf.bytes for leaf in decoder),
            cache=0,
            tokens=length,
        ),
        decode=Phase(
            matmul_flops=sum(2 * leaf.multiplications for leaf in decoder) * shape.beams,
            attention=4 * text_heads * text.depth * slots * shape.beams,
            weights=sum(leaf.bytes for leaf in decoder),
            cache=slots * _slot_bytes(config, shape) * shape.beams,
            tokens=1,
        ),
    )


@dataclass(frozen=True)
class _Leaf:
    """A parameter as each device holds it."""

    path: str
    multiplications: int
    """For one token; 0 of what is no matrix."""
    bytes: int


@cache
def _leaves(config: PaliGemmaConfig, dtype: Dtype, model_parallel: int) -> tuple[_Leaf, ...]:
    mesh = AbstractMesh((1, model_parallel), ("data", "model"))
    leaves = []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(config, dtype, mesh)):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        size = prod(leaf.sharding.shard_shape(leaf.shape))
        matrix = path.endswith(("/weight", "/kernel"))
        leaves.append(_Leaf(path, size if matrix else 0, size * leaf.dtype.itemsize))
    return tuple(leaves)


def _slot_bytes(config: PaliGemmaConfig, shape: Shape) -> int:
    """Of keys and values of all layers, for one position of one row: 2 [L, K, H]."""
    text = config.text
    head = text.head_dim + 4 if shape.int8_cache else text.head_dim * _itemsize(shape.dtype)
    return 2 * text.depth * _share(text.num_kv_heads, shape.model_parallel) * head


def _itemsize(dtype: Dtype) -> int:
    """Of activations."""
    return 4 if dtype == "float32" else 2


def _share(size: int, devices: int) -> int:
    """Of an axis, what each device has: its part where the axis divides, else all of it."""
    return size if size % devices else size // devices
