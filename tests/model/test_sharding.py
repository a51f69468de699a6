"""Several devices compute what one computes."""

import os
import subprocess
import sys

import pytest

from paliflow.model.sharding import local_mesh

CODE = """
import jax, numpy as np
from dataclasses import replace
from paliflow.model.xla import Backend
from paliflow.tests.model.conftest import expected, load_reference
model, want = load_reference("pg2", model_parallel={model_parallel}), expected("pg2")
model = replace(model, backend=Backend(slice_tokens=40))  # a slice of two rows or fewer
rows = np.arange({batch}) % 3
image, prompt, mask = (want[name][rows] for name in ("image", "prompt", "prompt_mask"))
assert len(jax.devices()) == 8
tokens = model.encode_images(image)
assert len(tokens.sharding.device_set) == 8
assert tokens.is_fully_replicated == ({batch} % (8 // {model_parallel}) != 0)
for shared in ("mlp/linear", "attn/q_einsum/w", "attn/attn_vec_einsum/w"):
    node = model.params["llm"]["layers_0"]
    for name in shared.split("/"):
        node = node[name]
    held = node.weight.addressable_shards[0].data.size
    assert held * {model_parallel} == node.weight.size, shared
result = model.generate_from_tokens(tokens, prompt, mask, max_new_tokens=16, eos_id=None)
np.testing.assert_array_equal(result.tokens, want["decoded"][rows])
"""


TRAINING = """
import jax, numpy as np
from jax.sharding import Mesh
from paliflow.model import sharding
from paliflow.model.loss import Batch
from paliflow.model.recipe import Recipe
from paliflow.model.train import Trainer
from paliflow.tests.model.conftest import expected, load_reference, reference_params
model, want = load_reference("pg2"), expected("pg2")
devices = np.array(jax.devices())
assert len(devices) == 8
sharding.SHARDED_BYTES = 2**12

def batch(size):
    rows = np.arange(size) % 3
    text, mask_ar, mask_loss = (want[x][rows] for x in ("text", "mask_ar", "mask_loss"))
    mask_loss[5:] = 0
    text[5:] = 7
    return Batch(want["image"][rows], text, mask_ar, mask_loss)

def losses(count, size, **recipe):
    mesh = Mesh(devices[:count], ("data",))
    trainer = Trainer(model.config, Recipe(9, dtype="float32", clip_norm=100, **recipe), mesh)
    state, frozen = trainer.init(reference_params("pg2"))
    table = state.params.get("llm", {{}}).get("embedder", {{}}).get("input_embedding")
    if table is not None:
        assert table.addressable_shards[0].data.size * count == table.size
    drawn = sharding.global_batch(batch(size), mesh)
    losses, norms = [], []
    for _ in range(3):
        state, metrics = trainer.step(state, frozen, drawn)
        losses.append(metrics["loss"])
        norms.append(metrics["grad_norm"])
        assert metrics["examples"] == 5
    total, examples = trainer.loss(state, frozen, drawn)
    return [*losses, total / examples], norms

def compare(some, other):
    np.testing.assert_allclose(some[0], other[0], rtol=1e-5)
    np.testing.assert_allclose(some[1], other[1], rtol=1e-4)

{assertion}
"""


def test_eight_devices_train_as_one_does() -> None:
    """Rows 5 to 15 do not count: more devices and more parts, the same five examples."""
    assertion = """
import pytest
compare(losses(8, 16, accumulate=2), losses(1, 5))
with pytest.raises(ValueError, match="5 examples in this process does not divide among its 8"):
    losses(8, 5)
with pytest.raises(ValueError, match="8 rows does not divide into accumulate=2 parts over 8"):
    losses(8, 8, accumulate=2)
"""
    _run(TRAINING.format(assertion=assertion))


@pytest.mark.slow
def test_eight_devices_drop_out_what_one_does() -> None:
    recipe = "lora_rank=2, dropout=0.1"
    assertion = f"compare(losses(8, 8, remat=True, {recipe}), losses(1, 8, {recipe}))"
    _run(TRAINING.format(assertion=assertion))


@pytest.mark.parametrize(("batch", "model_parallel"), [(3, 1), (16, 1), (6, 4)])
def test_eight_devices_generate_what_one_does(batch: int, model_parallel: int) -> None:
    """Eight copies of the model, and two over four devices each."""
    _run(CODE.format(batch=batch, model_parallel=model_parallel))


def test_devices_that_do_not_divide_into_models_are_an_error() -> None:
    with pytest.raises(ValueError, match="model_parallel=2: 1 devices do not divide into models"):
        local_mesh(2)


def _run(code: str) -> None:
    # Unoptimised programs compile in half the time.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
