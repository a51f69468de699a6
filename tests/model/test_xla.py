"""What a backend chooses changes how fast a program is, and not what it computes."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paliflow.model.attention import attend
from paliflow.model.layers import Rows, einsum, quantise
from paliflow.model.paligemma import encode_images
from paliflow.model.sharding import global_mesh
from paliflow.model.xla import (
    ANY,
    CPU_TOKENS,
    TOKENS,
    Backend,
    backend_of,
    tracing_for,
    training_backend,
)
from paliflow.tests.model.conftest import expected, load_reference

GIB = 2**30
GPU = Backend("xla", narrow_products=True)
"""A Hopper's choices, with the one implementation of attention that a CPU can run."""
ON_CPU = Backend(slice_tokens=CPU_TOKENS, queries=512)


def test_backend_is_any_where_nothing_was_measured() -> None:
    for kind in ("TPU v5 lite", "v5e", "v6e", "NVIDIA L4", "NVIDIA A100-SXM4-80GB"):
        assert backend_of(kind, 59.3 * GIB) == ANY == Backend()
    assert backend_of("cpu", 0) == ON_CPU


@pytest.mark.parametrize("kind", ["NVIDIA H100 80GB HBM3", "NVIDIA H200", "H100", "H200"])
def test_backend_of_a_hopper_is_what_was_measured_on_it(kind: str) -> None:
    measured = Backend("cudnn", narrow_products=True, slice_tokens=8 * TOKENS, queries=512)
    assert backend_of(kind, 59.3 * GIB) == measured
    assert backend_of(kind, 59.3 * GIB, devices=2) == ANY
    # A part of such a card has smaller slices.
    assert TOKENS < backend_of(kind, 15 * GIB).slice_tokens < 8 * TOKENS
    assert backend_of(kind, 0).slice_tokens == TOKENS


def test_backend_of_a_model_is_its_devices() -> None:
    model = load_reference("pg1")
    assert model.backend == model.network.backend == ON_CPU
    assert replace(model, backend=replace(GPU, slice_tokens=100)).slices(8, 50) == 4


def test_backend_changes_no_program_of_float32() -> None:
    model, want = load_reference("pg1"), expected("pg1")
    programs = {
        encode_images.lower(network, model.params, jnp.asarray(want["image"]), 1).as_text()
        for network in (model.network, replace(model, backend=GPU).network)
    }
    assert len(programs) == 1


def test_backend_of_a_gpu_computes_what_the_original_does() -> None:
    model, want = load_reference("pg1", dtype="bfloat16"), expected("pg1")
    inputs = want["image"], want["text"], want["mask_ar"]
    errors = [
        np.square(each.logits(*inputs) - want["logits"]).mean() ** 0.5
        for each in (model, replace(model, backend=GPU))
    ]
    assert errors[0] != errors[1]
    assert errors[1] < 1.25 * errors[0]


def _heads(dtype: Any, queries: int = 21) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = (2, queries, 4, 8), (2, 21, 2, 8), (2, 21, 2, 8)
    query, key, value = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    return query, key, value


def _masks() -> dict[str, jax.Array | None]:
    rng = np.random.default_rng(1)
    first = jnp.arange(21) < jnp.array([[[21]], [[13]]])
    return {
        "none": None,
        "first keys": first,
        "each query": jnp.asarray(rng.random((2, 21, 21)) < 0.7),
    }


@pytest.mark.parametrize("masked", ["none", "first keys", "each query"])
def test_fused_attention_is_attention(masked: str) -> None:
    mask, heads = _masks()[masked], _heads(jnp.bfloat16)
    plain = attend(*heads, mask, None)
    with tracing_for(GPU):
        fused = attend(*heads, mask, None)
    assert fused.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(fused, np.float32), np.asarray(plain, np.float32), atol=0.03
    )


@pytest.mark.parametrize(
    ("dtype", "queries", "softcap"),
    [(jnp.bfloat16, 21, 50.0), (jnp.bfloat16, 1, None), (jnp.float32, 21, None)],
)
def test_attention_that_no_kernel_computes_is_as_before(
    dtype: Any, queries: int, softcap: float | None
) -> None:
    heads, mask = _heads(dtype, queries), _masks()["first keys"]

    def traced(backend: Backend) -> str:
        with tracing_for(backend):
            return str(jax.make_jaxpr(lambda q, k, v: attend(q, k, v, mask, softcap))(*heads))

    assert traced(GPU) == traced(ANY)


@pytest.mark.parametrize("laid", [False, True])
def test_narrow_product_is_rounded_once(laid: bool) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 512)), jnp.bfloat16)
    weight = jnp.asarray(rng.normal(size=(512, 24)), jnp.bfloat16)
    kernel = Rows(weight.T, None, (24,), (512,)) if laid else weight
    with tracing_for(GPU):
        found = einsum("BTD,DF->BTF", x, kernel)
        wide = einsum("BTD,DF->BTF", x, kernel, jnp.float32)
    assert (found.dtype, wide.dtype) == (jnp.bfloat16, jnp.float32)
    exact = np.asarray(x, np.float64) @ np.asarray(weight, np.float64)
    # Half a unit in the last place, and what float32 loses where products cancel.
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=2**-8, atol=1e-3)
    np.testing.assert_allclose(np.asarray(wide, np.float64), exact, rtol=1e-5, atol=1e-3)


def test_int8_product_apart_from_its_scaling_is_the_same() -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(7, 64)), jnp.bfloat16)
    values, scale = quantise(jnp.asarray(rng.normal(size=(24, 64)), jnp.float32), (1,))
    kernel = Rows(values, scale[:, 0], (24,), (64,))
    plain = einsum("BD,DF->BF", x, kernel)
    with tracing_for(GPU):
        np.testing.assert_array_equal(einsum("BD,DF->BF", x, kernel), plain)


def test_training_on_a_hopper_multiplies_bfloat16_with_bfloat16() -> None:
    """As elsewhere asked, a gradient's product has a float32 operand, and gives the same."""
    assert training_backend(global_mesh()) == ON_CPU
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in ((2, 3, 64), (64, 32)))

    def gradients(backend: Backend) -> tuple[Any, set[Any]]:
        def summed(x: Any, w: Any) -> Any:
            return jnp.square(einsum("BTD,DF->BTF", x, w)).sum()

        with tracing_for(backend):
            both = jax.grad(summed, (0, 1))
            products = [e for e in jax.make_jaxpr(both)(x, w).eqns if "dot" in str(e.primitive)]
            found = both(x, w)
        return found, {each.aval.dtype for e in products for each in e.invars}

    (plain, kinds), (narrow, same) = gradients(ANY), gradients(GPU)
    assert len(kinds) == 2
    assert same == {jnp.dtype("bfloat16")}
    for one, other in zip(plain, narrow, strict=True):
        wanted = np.asarray(one, np.float32)
        np.testing.assert_allclose(np.asarray(other, np.float32), wanted, rtol=2**-7)
