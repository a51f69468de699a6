"""The arithmetic of a step is what XLA counts, and what is known of the published sizes."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from paliflow.model.config import VARIANTS
from paliflow.model.flops import train_flops
from paliflow.model.network import Network
from paliflow.model.weights import expected_shapes
from paliflow.tests.model.conftest import load_reference


def test_forward_operations_are_those_that_xla_counts() -> None:
    model = load_reference("pg1")
    size = model.config.image_size
    images, text = jnp.zeros((1, size, size, 3)), jnp.zeros((1, 12), jnp.int32)
    forward = jax.jit(Network(model.config).apply).lower(
        {"params": model.params}, images, text, text
    )
    counted: Any = forward.compile().cost_analysis()
    # Three times as many with the backward pass, of all but the first product's input.
    shapes = expected_shapes(model.config)
    whole = train_flops(model.config, 13, 12, trained=shapes)
    assert whole / 3 == pytest.approx(counted["flops"], rel=0.15)


def test_what_is_not_trained_costs_less() -> None:
    config = VARIANTS["paligemma-3b-224"]
    shapes = expected_shapes(config)
    full = train_flops(config, 128, 127, trained=shapes)
    text = train_flops(config, 128, 127, trained=[p for p in shapes if p.startswith("llm/")])
    lora = train_flops(config, 128, 127, trained=["llm/layers/mlp/linear_lora_a"])
    assert full == pytest.approx(6 * (2.0e9 * 383 + 0.53e9 * 127 + 0.41e9 * 256), rel=0.05)
    assert lora < text < full
    assert train_flops(config, 128, 127, 2, trained=shapes) > 1.6 * full
    # Of a suffix of 7 tokens, the table is multiplied with 120 states fewer.
    short = train_flops(config, 128, 7, trained=shapes)
    assert full - short == pytest.approx(120 * 6 * 257_152 * 2048)
