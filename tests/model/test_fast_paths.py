"""Every fast path computes what the plain one does: layouts, blocks, int8 weights and caches."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.benchmarks.digits.measure import PROMPTS, held_out_scenes
from paliflow.model import BUNDLED_CHECKPOINT, PaliGemma, Tokenizer, attention, preprocess
from paliflow.model.generate import generate
from paliflow.model.layers import Rows, einsum, quantise
from paliflow.model.network import apply
from paliflow.model.paligemma import encode_images
from paliflow.model.sampling import Greedy
from paliflow.model.sharding import local_mesh
from paliflow.model.slices import slices
from paliflow.model.weights import abstract_params
from paliflow.model.xla import TOKENS, Backend, int8_product, tracing_for
from paliflow.tests.model.conftest import expected, load_reference, reference_params

_VARIATIONS = [("pg1", "float32"), ("pg1", "bfloat16"), ("pg2", "float32")]


def _rms(x: Any) -> float:
    return float(np.square(x).mean() ** 0.5)


@pytest.fixture(scope="module")
def scenes() -> tuple[Any, Any, Any]:
    """Images that the bundled model reads, and one of four questions about each."""
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    drawn = held_out_scenes(25)
    images = np.stack([preprocess(scene.image, 56) for scene in drawn])
    texts = PROMPTS[:-1]  # without boxes, whose last bit moves
    asked = [tokenizer.encode_prompt(texts[n % len(texts)], 32) for n in range(len(drawn))]
    width = max(map(len, asked))
    prompt = np.array([ids + [0] * (width - len(ids)) for ids in asked], np.int32)
    return images, prompt, np.arange(width) < np.array([[len(ids)] for ids in asked])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("pg2", "bfloat16"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in _VARIATIONS),
    ],
)
def test_layers_apart_compute_what_stacked_ones_do(name: str, dtype: str) -> None:
    model, want = load_reference(name, dtype=dtype), expected(name)
    network, stacked = model.network, reference_params(name, dtype)
    inputs = want["image"], want["text"], want["mask_ar"]
    compute = jax.jit(lambda params, *inputs: apply(network, params, "__call__", *inputs))
    plain = compute(stacked, *inputs)
    fast = model.logits(*inputs)
    if dtype == "bfloat16":  # rounded otherwise, and no worse: the original's are in float32
        assert _rms(fast - want["logits"]) < 1.25 * _rms(plain - want["logits"])
    else:
        np.testing.assert_allclose(fast, plain, atol=1e-4)
    if dtype == "float32":
        rest: dict[str, Any] = {"max_new_tokens": 16, "sampler": Greedy(), "eos_id": None}
        prompt = want["prompt"], want["prompt_mask"]
        tokens = model.encode_images(want["image"])
        ids, mask = map(jnp.asarray, prompt)
        slow = generate(network, stacked, tokens, ids, mask, 0, **rest)
        np.testing.assert_array_equal(
            model.generate_from_tokens(tokens, *prompt, max_new_tokens=16, eos_id=None).tokens,
            slow.tokens,
        )


@pytest.mark.slow
@pytest.mark.parametrize(("count", "int8_cache"), [(3, True), (2, False), (6, False)])
def test_a_batch_in_slices_is_the_batch(count: int, int8_cache: bool) -> None:
    model, want = load_reference("pg2"), expected("pg2")
    rows = np.arange(6) % 3
    images, prompt, mask = (jnp.asarray(want[x][rows]) for x in ("image", "prompt", "prompt_mask"))

    def answers(count: int) -> tuple[Any, Any]:
        tokens = encode_images(model.network, model.params, images, count)
        return tokens, generate(
            *(model.network, model.params, tokens, prompt, mask, 0),
            max_new_tokens=8,
            sampler=Greedy(),
            eos_id=None,
            int8_cache=int8_cache,
            slices=count,
        )

    (tokens, whole), (of_slices, cut) = answers(1), answers(count)
    np.testing.assert_allclose(of_slices, tokens, atol=2e-5)
    np.testing.assert_array_equal(cut.tokens, whole.tokens)
    np.testing.assert_allclose(cut.logprobs, whole.logprobs, atol=1e-4)


@given(rows=st.integers(1, 600), tokens=st.integers(1, 5000))
def test_slices_are_equal_and_hold_no_more_than_they_may(rows: int, tokens: int) -> None:
    count = slices(rows, tokens)
    assert rows % count == 0
    assert rows // count == 1 or rows // count * tokens <= TOKENS
    assert all(rows % fewer or rows // fewer * tokens > TOKENS for fewer in range(1, count))


@pytest.mark.parametrize(
    ("masked", "softcap"),
    [
        *(("none", None), ("keys", 5.0), ("each query", 5.0)),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("none", 5.0), ("keys", None), ("each query", None))
        ),
    ],
)
def test_attention_in_blocks_is_attention(masked: str, softcap: float | None) -> None:
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(2, 21, 4, 8)), jnp.float32)
    key, value = (jnp.asarray(rng.normal(size=(2, 21, 2, 8)), jnp.float32) for _ in range(2))
    seen = jnp.asarray(rng.random((2, 21, 21)) < 0.7)
    mask = {"none": None, "keys": seen[:, :1], "each query": seen}[masked]

    def summed(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.square(attention.attend(query, key, value, mask, softcap)).sum()

    want = attention.attend(query, key, value, mask, softcap)
    slopes = jax.grad(summed, (0, 1, 2))(query, key, value)
    with tracing_for(Backend(queries=4)):
        mixed = attention.attend(query, key, value, mask, softcap)
        in_blocks = jax.grad(summed, (0, 1, 2))(query, key, value)
    np.testing.assert_allclose(mixed, want, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(in_blocks, slopes, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [2, 8])
def test_attention_of_grouped_heads_is_each_heads_own(heads: int) -> None:
    """Few heads of a key go one after the other, and eight of each position side by side."""
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(2, 5, 2 * heads, 8)), jnp.float32)
    key, value = (jnp.asarray(rng.normal(size=(2, 7, 2, 8)), jnp.float32) for _ in range(2))
    mask = jnp.asarray(rng.random((2, 5, 7)) < 0.7).at[..., 0].set(True)
    for seen in (mask, mask[:, :1]):
        found = attention.attend(query, key, value, seen, 5.0)
        for head in range(2 * heads):
            own = key[:, :, head // heads], value[:, :, head // heads]
            logits = 5 * jnp.tanh(jnp.einsum("btd,bsd->bts", query[:, :, head], own[0]) / 5)
            weights = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf))
            wanted = jnp.einsum("bts,bsd->btd", weights, own[1])
            np.testing.assert_allclose(found[:, :, head], wanted, rtol=1e-4, atol=1e-6)


def test_attention_in_blocks_holds_a_block_of_logits() -> None:
    """4,096 queries of one 896-pixel image: 1.07 GB of logits, of which an eighth is held."""
    shape = jax.ShapeDtypeStruct((1, 4096, 16, 72), jnp.bfloat16)
    program = jax.jit(lambda q, k, v: attention.attend(q, k, v, None, None))
    memory: Any = program.lower(shape, shape, shape).compile().memory_analysis()
    logits = 16 * 4096 * 4096 * 4
    assert memory.temp_size_in_bytes < 0.5 * logits


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int8])
def test_a_single_row_meets_the_weight_as_it_is(dtype: Any) -> None:
    """A wider copy of it would be twice its size, or four times."""
    outputs, inputs = 4096, 2048
    scale = jax.ShapeDtypeStruct((outputs,), jnp.float32) if dtype == jnp.int8 else None
    weight = jax.ShapeDtypeStruct((outputs, inputs), dtype)
    rows = Rows(weight, scale, (outputs,), (inputs,))
    x = jax.ShapeDtypeStruct((1, 1, inputs), jnp.bfloat16)
    program = jax.jit(lambda x, rows: einsum("BTD,DF->BTF", x, rows)).lower(x, rows).compile()
    memory: Any = program.memory_analysis()
    assert memory.temp_size_in_bytes < 0.1 * outputs * inputs


def test_int8_holds_a_weight_to_half_a_step_and_a_product_to_about_a_percent() -> None:
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=(6, 3, 64)), jnp.float32)
    values, scale = quantise(weight, (-1,))
    assert values.dtype == jnp.int8
    assert np.abs(np.asarray(values)).max() == 127
    assert np.all(np.abs(values * scale - weight) <= 0.5001 * np.asarray(scale))
    x = jnp.asarray(rng.normal(size=(2, 5, 64)), jnp.float32)
    rows = Rows(values.reshape(18, 64), scale.reshape(18), (6, 3), (64,))
    found = einsum("BTD,DNH->BTNH", x, rows)
    exact = jnp.einsum("BTD,NHD->BTNH", x, weight)
    assert _rms(found - exact) < 0.015 * _rms(exact)
    assert not np.any(einsum("BTD,NHD->BTNH", 0 * x, rows))


def test_float8_holds_a_weight_to_a_sixteenth_and_a_product_to_a_few_percent() -> None:
    """Three bits of mantissa: each value is off by a sixteenth of itself at most."""
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=(18, 64)), jnp.float32)
    values, scale = quantise(weight, (1,), jnp.float8_e4m3fn)
    held = np.asarray(values.astype(jnp.float32))
    assert np.all(np.abs(held).max(axis=1) == 448)
    wrong = np.abs(held * scale - weight)
    assert np.all(wrong <= np.abs(weight) / 16 + 2**-10 * np.asarray(scale))
    rows = Rows(values, scale.reshape(18), (6, 3), (64,))
    x = jnp.asarray(rng.normal(size=(2, 5, 64)), jnp.float32)
    exact = jnp.einsum("BTD,OD->BTO", x, weight).reshape(2, 5, 6, 3)
    found = einsum("BTD,DNH->BTNH", x, rows)
    assert 0.005 * _rms(exact) < _rms(found - exact) < 0.05 * _rms(exact)
    # What enters is rounded too, token by token: one is not spoilt by another that is larger.
    x = x.at[0, 0].multiply(1e6)
    np.testing.assert_array_equal(einsum("BTD,DNH->BTNH", x, rows)[1], found[1])
    assert not np.any(einsum("BTD,DNH->BTNH", 0 * x, rows))


@pytest.mark.parametrize("unsigned", [False, True])
def test_a_product_of_bytes_is_exact(unsigned: bool) -> None:
    """Also of the largest, and of more inputs than any published model multiplies."""
    rng = np.random.default_rng(0)
    x = np.asarray(rng.integers(-127, 128, (5, 40_000)), np.int8)
    rows = np.asarray(rng.integers(-127, 128, (9, 40_000)), np.int8)
    x[0], rows[:2] = 127, [[127], [-127]]
    found = int8_product(jnp.asarray(x), jnp.asarray(rows), unsigned)
    np.testing.assert_array_equal(found, x.astype(np.int64) @ rows.T.astype(np.int64))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["int8", "float8_e4m3fn", "int8 cache", "gpu"])
def test_eight_bits_and_a_gpus_backend_read_what_bfloat16_reads(way: str, scenes: Any) -> None:
    """The bundled model on images it can read: the same answers but for one in twenty-five."""
    images, prompt, mask = scenes
    model = PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT)
    if way in ("int8", "float8_e4m3fn"):
        other = PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT, dtype=way)
    else:
        gpu = replace(model, backend=Backend("xla", narrow_products=True))
        other = gpu if way == "gpu" else model
    plain, found = (
        each.generate(images, prompt, mask, max_new_tokens=16, int8_cache=int8_cache)
        for each, int8_cache in ((model, False), (other, way == "int8 cache"))
    )
    alike = (found.tokens == plain.tokens).all(axis=1)
    assert np.mean(alike) >= 0.96
    drift = np.abs(found.logprobs.sum(1) - plain.logprobs.sum(1))[np.asarray(alike)]
    assert np.mean(drift) < 0.05


def test_what_is_planned_for_is_what_is_loaded() -> None:
    for dtype in ("float32", "bfloat16", "int8", "float8_e4m3fn"):
        model = load_reference("pg2", dtype=dtype)
        planned = abstract_params(model.config, dtype, local_mesh())
        found = jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), model.params)
        assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), planned) == found
