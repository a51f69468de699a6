"""Dropout sits where the published decoder has it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from paliflow.model.gemma import AttentionInputs, Block
from paliflow.tests.model.conftest import load_reference


@pytest.mark.parametrize("name", [pytest.param("pg1", marks=pytest.mark.slow), "pg2"])
def test_dropout_is_after_one_post_norm_and_before_the_other(name: str) -> None:
    config = load_reference(name).config.text
    x = jax.random.normal(jax.random.key(1), (1, 4, config.width))
    inputs = (x, None, AttentionInputs(jnp.arange(4)[None], jnp.ones((1, 4, 4), bool)))
    block = Block(config, dropout=0.5)
    params = block.init({"params": jax.random.key(0), "dropout": jax.random.key(2)}, *inputs)
    seen: list[tuple[str, Any, Any]] = []

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        if args and context.method_name == "__call__":
            whole = result[0] if isinstance(result, tuple) else result
            seen.append((context.module.name, args[0], whole))
        return result

    with nn.intercept_methods(record):
        y, _ = block.apply(params, *inputs, rngs={"dropout": jax.random.key(3)})
    calls: dict[str, Any] = {name: (first, result) for name, first, result in seen}
    attention, feed_forward = calls["Dropout_0"], calls["Dropout_1"]
    last = calls["post_attention_norm"] if config.post_norms else calls["attn"]
    np.testing.assert_array_equal(attention[0], last[1])
    np.testing.assert_array_equal(calls["pre_ffw_norm"][0], x + attention[1])
    np.testing.assert_array_equal(feed_forward[0], calls["mlp"][1])
    if config.post_norms:
        np.testing.assert_array_equal(calls["post_ffw_norm"][0], feed_forward[1])
    added = calls["post_ffw_norm"] if config.post_norms else feed_forward
    np.testing.assert_array_equal(y, x + attention[1] + added[1])
    for before, after in (attention, feed_forward):
        kept = np.asarray(after) != 0
        assert 0.3 < kept.mean() < 0.7
        np.testing.assert_allclose(after[kept], 2 * before[kept], rtol=1e-6)
