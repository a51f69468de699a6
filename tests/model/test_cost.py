"""What inference is reckoned to take, against arrays that exist, XLA's counts and plain sums."""

from dataclasses import replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from paliflow.configs.chips import Chip, Dtype
from paliflow.model import BUNDLED_CHECKPOINT, VARIANTS, PaliGemma
from paliflow.model.cost import Memory, Phase, Shape, Work, largest_batch, memory, work
from paliflow.model.network import apply
from paliflow.model.weights import expected_shapes
from paliflow.model.xla import TOKENS
from paliflow.tests.model.conftest import load_reference

SMALL = VARIANTS["paligemma-3b-224"]
SHAPE = Shape("bfloat16", prompt_tokens=8, new_tokens=32)
GIB = 2**30


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "float8_e4m3fn", "float32"])
def test_parameters_take_what_loaded_ones_do(dtype: Dtype) -> None:
    model = PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT, dtype=dtype)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    need = memory(model.config, Shape(dtype, prompt_tokens=8, new_tokens=1), 1)
    assert need.parameters == held


def test_int8_and_more_chips_leave_less_of_the_parameters_on_each() -> None:
    def parameters(dtype: Dtype, over: int) -> int:
        return memory(SMALL, replace(SHAPE, dtype=dtype, model_parallel=over), 1).parameters

    count = sum(prod(shape) for shape in expected_shapes(SMALL).values())
    assert count == pytest.approx(2.92e9, rel=0.01)
    assert parameters("bfloat16", 1) == 2 * count
    assert parameters("int8", 1) == pytest.approx(count, rel=0.01)
    for over in (2, 8):
        # What does not divide, e.g. the one key-value head, is on every chip.
        assert 1 / over < parameters("bfloat16", over) / parameters("bfloat16", 1) < 1.1 / over


@pytest.mark.parametrize(
    ("name", "per_token"),
    [("paligemma-3b-224", 18_432), ("paligemma2-10b-448", 344_064)],
)
def test_the_cache_takes_what_is_known_of_the_published_models(name: str, per_token: int) -> None:
    config = VARIANTS[name]
    slots = config.vision.num_patches + 8 + 32 - 1
    assert memory(config, SHAPE, 6).cache == 6 * slots * per_token
    clip = memory(config, replace(SHAPE, frames=3), 6)
    assert clip.cache == 6 * (slots + 2 * config.vision.num_patches) * per_token
    # One byte instead of two, and four for each head's scale.
    half = memory(config, replace(SHAPE, int8_cache=True), 6).cache
    assert half == 3 * slots * per_token * (1 + 4 / config.text.head_dim)
    heads = config.text.num_kv_heads
    spread = memory(config, replace(SHAPE, model_parallel=2), 6).cache
    assert spread == 6 * slots * per_token // (1 if heads == 1 else 2)


def test_a_batch_is_split_among_copies_where_it_divides() -> None:
    def rows(batch: int, copies: int) -> Memory:
        return memory(SMALL, replace(SHAPE, data_parallel=copies), batch)

    assert rows(16, 4) == rows(4, 1)
    assert rows(6, 4) == rows(6, 1)
    assert rows(4, 1).parameters == rows(8, 1).parameters
    four, eight = rows(4, 1), rows(8, 1)
    assert eight.total - eight.parameters == 2 * (four.total - four.parameters)
    assert four.logits == 3 * 4 * 4 * 257_152


def test_larger_images_take_more_memory_but_never_all_attention_logits() -> None:
    transients = [
        memory(VARIANTS[f"paligemma-3b-{size}"], SHAPE, 1).activations for size in (224, 448, 896)
    ]
    assert transients == sorted(transients)
    all_logits = 4 * 16 * VARIANTS["paligemma-3b-896"].vision.num_patches ** 2
    assert transients[-1] < all_logits


@pytest.mark.parametrize("hbm", [4.0, 8.0, 15.75, 31.25, 59.3])
@pytest.mark.parametrize("copies", [1, 4])
def test_the_largest_batch_fits_and_twice_it_does_not(hbm: float, copies: int) -> None:
    shape = replace(SHAPE, data_parallel=copies)
    batch = largest_batch(SMALL, shape, hbm * GIB)

    def fits(batch: int) -> bool:
        return memory(SMALL, shape, batch).total <= 0.9 * hbm * GIB

    if hbm < 5:  # not even the weights
        assert batch == 0
        assert not fits(copies)
        return
    assert (batch // copies).bit_count() == 1
    assert fits(batch)
    assert batch == 512 or not fits(2 * batch)


def test_more_memory_or_smaller_numbers_make_no_batch_smaller() -> None:
    sizes = [largest_batch(SMALL, SHAPE, gib * GIB) for gib in range(4, 128, 4)]
    assert sizes == sorted(sizes)
    assert max(sizes) == 512
    assert largest_batch(SMALL, SHAPE, 128 * GIB, at_most=100) == 64
    int8 = replace(SHAPE, dtype="int8", int8_cache=True)
    assert largest_batch(SMALL, int8, 7 * GIB) > largest_batch(SMALL, SHAPE, 7 * GIB)


def test_logits_of_choices_go_through_in_blocks_of_nodes_whatever_the_batch() -> None:
    def logits(batch: int, **fields: Any) -> int:
        return memory(SMALL, replace(SHAPE, **fields), batch).logits

    assert logits(1, choices=True) == logits(256, choices=True) == logits(256) == 256 * logits(1)
    assert logits(512, choices=True) == logits(512)
    assert logits(8, choices=True, data_parallel=8) == 32 * logits(1)


def test_the_published_model_takes_the_operations_that_are_known_of_it() -> None:
    each = work(SMALL, SHAPE)
    assert each.vision.matmul_flops == pytest.approx(2 * 0.411e9 * 256, rel=0.01)
    assert each.vision.attention == 4 * 27 * 1152 * 256**2
    # 17 layers for all positions; keys and values of the last, and one logit, are small.
    layers = 2048 * (2 * 8 * 256 + 2 * 256 + 3 * 16_384)
    assert each.prefill.matmul_flops == pytest.approx(2 * 17 * layers * 264, rel=0.005)
    assert each.prefill.flops == pytest.approx(1.05e12, rel=0.06)
    matrices = 18 * layers + 257_152 * 2048
    assert each.decode.matmul_flops == 2 * matrices
    assert each.decode.weights == pytest.approx(2 * matrices, rel=1e-4)
    assert each.decode.cache == 295 * 18_432
    clip = work(SMALL, replace(SHAPE, frames=8))
    assert clip.vision.flops == 8 * each.vision.flops
    assert clip.vision.weights == each.vision.weights


def test_chips_that_share_a_model_share_its_work() -> None:
    one, four = (work(SMALL, replace(SHAPE, model_parallel=over)) for over in (1, 4))
    for phase in ("vision", "prefill", "decode"):
        alone, shared = getattr(one, phase), getattr(four, phase)
        assert shared.flops == pytest.approx(alone.flops / 4, rel=0.03)
        assert shared.weights == pytest.approx(alone.weights / 4, rel=0.03)


def test_operations_are_those_that_xla_counts() -> None:
    model = load_reference("pg1")
    size, batch = model.config.image_size, 2
    each = work(model.config, Shape("float32", prompt_tokens=16, new_tokens=1))
    images = jnp.zeros((batch, size, size, 3))
    patches = model.config.vision.num_patches
    tokens = jnp.zeros((batch, patches, model.config.text.width))
    prompt, mask = jnp.zeros((batch, 16), jnp.int32), jnp.ones((batch, 16), bool)

    def counted(method: str, *arguments: jax.Array) -> float:
        run = jax.jit(lambda params, *x: apply(model.network, params, method, *x))
        cost: Any = run.lower(model.params, *arguments).compile().cost_analysis()
        return float(cost["flops"]) / batch

    assert each.vision.flops == pytest.approx(counted("encode_images", images), rel=0.15)
    assert each.prefill.flops == pytest.approx(counted("prefill", tokens, prompt, mask), rel=0.15)


CHIP = Chip.parse(
    {
        "name": "slow",
        "kinds": ["slow"],
        "hbm": 1,
        "peak": {"bfloat16": 10, "int8": 20, "float32": 1},
        "bandwidth": 100,
        "price": 1,
        "efficiency": {"compute": 0.5, "bandwidth": 0.25, "measured": False},
    }
)


def test_a_phase_takes_as_long_as_computing_or_as_reading() -> None:
    # A row: 4 TFLOP of products and 1 of attention. To read: 50 GB, and 10 GB a row.
    phase = Phase(4e12, 1e12, 50 * 10**9, 10 * 10**9, tokens=1)
    assert phase.seconds(CHIP, "bfloat16", 1) == pytest.approx(60 / 25)
    assert phase.seconds(CHIP, "bfloat16", 8) == pytest.approx(8 * (4 + 1) / 5)
    assert phase.seconds(CHIP, "int8", 8) == pytest.approx(130 / 25)
    assert phase.seconds(CHIP, "int8", 80) == pytest.approx(80 * (4 / 10 + 1 / 5))
    assert phase.seconds(CHIP, "float32", 8) == pytest.approx(8 * 5 / 0.5)


def test_weights_are_read_for_every_slice_of_a_batch() -> None:
    phase = Phase(0, 0, 50 * 10**9, 0, tokens=TOKENS // 4)
    assert phase.seconds(CHIP, "bfloat16", 4) == pytest.approx(50 / 25)
    assert phase.seconds(CHIP, "bfloat16", 8) == pytest.approx(100 / 25)


def test_the_vision_tower_runs_once_however_many_the_prompts() -> None:
    vision, prefill, decode = (Phase(flops, 0, 0, 0, 1) for flops in (7e12, 5e12, 1e12))
    each = Work("bfloat16", vision, prefill, decode)
    assert each.seconds(CHIP, 1, 1, 1) == pytest.approx((7 + 5) / 5)
    assert each.seconds(CHIP, 1, 3, 11) == pytest.approx((7 + 3 * (5 + 10)) / 5)
