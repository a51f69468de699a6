"""Several devices compute what one computes."""

import os
import subprocess
import sys

import pytest

from paliflow.model.sharding import local_mesh

GENERATION = """
import jax, numpy as np
from dataclasses import replace
from paliflow.model import Greedy
from paliflow.model.generate import decode
from paliflow.model.xla import Backend
from paliflow.tests.model.conftest import expected, held_bytes, load_reference
want = expected("pg2")
assert len(jax.devices()) == 8

def compare(batch, model_parallel):
    model = load_reference("pg2", model_parallel=model_parallel)
    model = replace(model, backend=Backend(slice_tokens=40))  # a slice of two rows or fewer
    rows = np.arange(batch) % 3
    image, prompt, mask = (want[name][rows] for name in ("image", "prompt", "prompt_mask"))
    tokens = model.encode_images(image)
    assert len(tokens.sharding.device_set) == 8
    assert tokens.is_fully_replicated == (batch % (8 // model_parallel) != 0)
    for shared in ("mlp/linear", "attn/q_einsum/w", "attn/attn_vec_einsum/w"):
        node = model.params["llm"]["layers_0"]
        for name in shared.split("/"):
            node = node[name]
        held = node.weight.addressable_shards[0].data.size
        assert held * model_parallel == node.weight.size, shared
    prefilled = model.prefill(tokens, prompt, mask, max_new_tokens=16)
    options = {{"sampler": Greedy(), "eos_id": None}}
    program = decode.lower(model.network, model.params, *prefilled, 0, **options).compile()
    assert program.memory_analysis().alias_size_in_bytes == held_bytes(prefilled.cache)
    result, _ = program(model.params, *prefilled, 0)
    np.testing.assert_array_equal(result.tokens, want["decoded"][rows])

for case in {cases}:
    compare(*case)
"""


TRAINING = """
import jax, numpy as np, optax
from jax.sharding import Mesh
from paliflow.model import loss, sharding
from paliflow.model.loss import Batch
from paliflow.model.recipe import Recipe
from paliflow.model.train import Trainer
from paliflow.tests.model.conftest import config_of, expected, reference_params
stored, want = reference_params("pg2", layers=1), expected("pg2")
devices = np.array(jax.devices())
assert len(devices) == 8
sharding.SHARDED_BYTES = 2**12
loss.CHUNK = 200
LEARNING_RATE = 1e-5

def batch(size):
    rows = np.arange(size) % 3
    text, mask_ar, mask_loss = (want[x][rows] for x in ("text", "mask_ar", "mask_loss"))
    mask_loss[5:] = 0
    text[5:] = 7
    return Batch(want["image"][rows], text, mask_ar, mask_loss)

def trainer_of(count, **recipe):
    mesh = Mesh(devices[:count], ("data",))
    fields = dict(learning_rate=LEARNING_RATE, dtype="float32", clip_norm=100)
    return Trainer(config_of(stored), Recipe(9, **fields, **recipe), mesh)

def step(trainer, size, state, frozen):
    drawn = sharding.global_batch(batch(size), trainer.mesh)
    total, examples = trainer.loss(trainer.merged(state, frozen), drawn)
    state, metrics = trainer.step(state, frozen, drawn)
    assert metrics["examples"] == examples == 5
    return state, (metrics["loss"], total / examples), metrics["grad_norm"]

def compare(several, rows, one, rows_of_one):
    # Adam makes whole steps of rounding, so the eight begin each step where the one begins it.
    state, frozen = one.init(stored)
    spread, held = several.init(stored)
    table = spread.params.get("llm", {{}}).get("embedder", {{}}).get("input_embedding")
    if table is not None:
        assert table.addressable_shards[0].data.size * len(devices) == table.size
    places = jax.tree.map(lambda leaf: leaf.sharding, spread)
    for _ in range(3):
        spread = jax.device_put(jax.tree.map(np.array, state), places)
        spread, losses, norm = step(several, rows, spread, held)
        state, wanted_losses, wanted_norm = step(one, rows_of_one, state, frozen)
        np.testing.assert_allclose(losses, wanted_losses, rtol=1e-5)
        np.testing.assert_allclose(norm, wanted_norm, rtol=1e-4)
        both = [jax.tree.map(np.asarray, each) for each in (spread, state)]
        means = [jax.tree.leaves(optax.tree.get(each.opt_state, "mu")) for each in both]
        overall = max(np.abs(wanted).max() for wanted in means[1])
        for mean, wanted, *after in zip(*means, *(jax.tree.leaves(x.params) for x in both)):
            # Keys' biases have no gradient but what sums of others leave.
            largest = max(np.abs(wanted).max(), 0.01 * overall)
            np.testing.assert_allclose(mean, wanted, rtol=0, atol=1e-4 * largest)
            sure = np.abs(wanted) > 0.01 * largest  # the rest may be noise
            np.testing.assert_allclose(*(x[sure] for x in after), rtol=0, atol=0.1 * LEARNING_RATE)

{assertion}
"""


@pytest.mark.slow
def test_eight_devices_train_as_one_does() -> None:
    """Rows 5 to 15 do not count: more devices and more parts, the same five examples."""
    assertion = """
import pytest
eight = trainer_of(8, accumulate=2)
compare(eight, 16, trainer_of(1), 5)
state, frozen = eight.init(stored)
with pytest.raises(ValueError, match="5 examples in this process does not divide among its 8"):
    step(eight, 5, state, frozen)
with pytest.raises(ValueError, match="8 rows does not divide into accumulate=2 parts over 8"):
    step(eight, 8, state, frozen)
"""
    _run(TRAINING.format(assertion=assertion))


@pytest.mark.slow
def test_eight_devices_drop_out_what_one_does() -> None:
    recipe = "lora_rank=2, dropout=0.1"
    assertion = f"compare(trainer_of(8, remat=True, {recipe}), 8, trainer_of(1, {recipe}), 8)"
    _run(TRAINING.format(assertion=assertion))


@pytest.mark.parametrize(
    "cases",
    [((6, 4),), *(pytest.param((case,), marks=pytest.mark.slow) for case in ((3, 1), (16, 1)))],
)
def test_eight_devices_generate_what_one_does(cases: tuple[tuple[int, int], ...]) -> None:
    """Eight copies of the model, and two over four devices each: of a batch that divides or not."""
    _run(GENERATION.format(cases=cases))


def test_devices_that_do_not_divide_into_models_are_an_error() -> None:
    with pytest.raises(ValueError, match="model_parallel=2: 1 devices do not divide into models"):
        local_mesh(2)


def _run(code: str) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
