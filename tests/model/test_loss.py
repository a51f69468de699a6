"""The loss in chunks of the vocabulary, over suffixes alone, is the loss of all logits."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paliflow.model import loss
from paliflow.model.loss import suffix_losses
from paliflow.model.sharding import chunked_rows

ROWS, LENGTH, WIDTH, TOKENS = 3, 40, 16, 96


def _plain(states: Any, table: Any, targets: Any, weights: Any, softcap: Any, share: float) -> Any:
    """Of all logits at once, in float32."""
    logits = jnp.einsum("btd,vd->btv", states, table, precision="highest")
    logits = softcap * jnp.tanh(logits / softcap) if softcap else logits
    wanted = jax.nn.one_hot(targets, TOKENS) * (1 - share - share / (TOKENS - 1))
    nll = -((wanted + share / (TOKENS - 1)) * jax.nn.log_softmax(logits)).sum(-1)
    return (nll * weights).sum(1) / jnp.maximum(weights.sum(1), 1)


def _inputs(longest: int, dtype: Any) -> tuple[jax.Array, ...]:
    """States, table, targets and weights: a long suffix, a short one after a prefix, and none."""
    rng = np.random.default_rng(0)
    weights = np.zeros((ROWS, LENGTH), np.int32)
    weights[0, LENGTH - longest :] = weights[1, 7:9] = 1
    return (
        jnp.asarray(rng.normal(size=(ROWS, LENGTH, WIDTH)), dtype),
        jnp.asarray(rng.normal(size=(TOKENS, WIDTH)), dtype),
        jnp.asarray(rng.integers(0, TOKENS, (ROWS, LENGTH))),
        jnp.asarray(weights),
    )


@pytest.mark.parametrize(
    ("dtype", "longest", "chunk", "softcap", "smoothing"),
    [
        (jnp.float32, 17, 24, 5.0, 0.2),
        (jnp.float32, 5, 95, None, 0.0),
        pytest.param(jnp.bfloat16, 17, 24, 5.0, 0.2, marks=pytest.mark.slow),
        pytest.param(jnp.bfloat16, 16, 95, None, 0.0, marks=pytest.mark.slow),
        pytest.param(jnp.float32, 40, 96, None, 0.2, marks=pytest.mark.slow),
    ],
)
def test_loss_in_chunks_over_suffixes_equals_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
    dtype: Any,
    longest: int,
    chunk: int,
    softcap: float | None,
    smoothing: float,
) -> None:
    monkeypatch.setattr(loss, "CHUNK", chunk)
    *arrays, targets, weights = _inputs(longest, dtype)
    slopes = jnp.array([1.0, -2.0, 3.0])

    def chunked(states: jax.Array, table: jax.Array) -> jax.Array:
        return suffix_losses(
            states, table, targets, weights, softcap=softcap, label_smoothing=smoothing
        )

    def plain(states: jax.Array, table: jax.Array) -> Any:
        return _plain(states, table, targets, weights, softcap, smoothing)

    found, pull = jax.vjp(chunked, *arrays)
    want, pull_plain = jax.vjp(plain, *(x.astype(jnp.float32) for x in arrays))
    assert found[2] == 0
    np.testing.assert_allclose(found, want, rtol=1e-6)
    for gradient, wanted in zip(pull(slopes), pull_plain(slopes), strict=True):
        assert gradient.dtype == dtype
        # Of bfloat16: the gradient is rounded once, and before that the gradients of logits are,
        # which adds up to 0.0013 of the largest here.
        rounding, noise = (0, 1e-6) if dtype == jnp.float32 else (2**-8, 2**-9)
        largest = float(jnp.abs(wanted).max())
        np.testing.assert_allclose(
            np.asarray(gradient, np.float32), wanted, rtol=rounding, atol=noise * largest
        )


def test_loss_makes_no_array_of_all_logits() -> None:
    """Neither forwards nor backwards: of 128 states and 257,152 tokens they are 132 MB."""
    shapes = (2, 64, 32), (257_152, 32)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    counts = jax.ShapeDtypeStruct((2, 64), jnp.int32)

    def summed(states: jax.Array, table: jax.Array, targets: Any, weights: Any) -> jax.Array:
        return suffix_losses(states, table, targets, weights).sum()

    def program(argnums: tuple[int, ...]) -> str:
        return jax.jit(jax.grad(summed, argnums)).lower(*arrays, counts, counts).as_text()

    of_table = r"dynamic_update_slice.*36736x32x"
    whole, frozen = program((0, 1)), program((0,))
    for text in (whole, frozen):
        assert "tensor<2x64x36736xf32>" in text
        assert not re.search(r"tensor<[\dx]+x257152x", text)
    # Of a frozen table no gradient is made, not even one that is thrown away.
    assert re.search(of_table, whole)
    assert not re.search(of_table, frozen)


@pytest.mark.parametrize(
    ("devices", "rows", "count"),
    [(1, 257_152, 7), (8, 257_152, 7), (256, 257_152, 7), (8, 1000, 1), (1, 39_999_983, 1)],
)
def test_vocabulary_is_cut_to_chunks_whatever_the_devices_are(
    devices: int, rows: int, count: int
) -> None:
    """256 devices do not divide 257,152 tokens, and nothing divides a prime number of them."""
    table = jax.ShapeDtypeStruct((rows, 4), jnp.float32)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((devices,), ("data",))):
        chunks = jax.eval_shape(lambda x: chunked_rows(x, loss.CHUNK), table)
    assert chunks.shape == (count, rows // count, 4)
