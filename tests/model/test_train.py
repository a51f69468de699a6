"""The training step does what the published recipe says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from paliflow.model.network import Network
from paliflow.model.train import (
    Batch,
    TrainState,
    learning_schedule,
    make_optimizer,
    make_train_step,
    suffix_loss,
)
from paliflow.tests.model.conftest import expected, load_reference


def _batch() -> Batch:
    want = expected("pg1")
    return Batch(want["image"], want["text"], want["mask_ar"], want["mask_loss"])


def _state(optimizer: optax.GradientTransformation) -> TrainState:
    params = jax.tree.map(jnp.copy, load_reference("pg1").params)
    return TrainState(jnp.int32(0), params, optimizer.init(params))


def _flat(params: Any) -> dict[str, np.ndarray[Any, Any]]:
    flat = traverse_util.flatten_dict(params, sep="/")
    return {path: np.asarray(leaf) for path, leaf in flat.items()}


def test_one_step_equals_adam_by_hand() -> None:
    schedule = optax.constant_schedule(0.5)
    optimizer = make_optimizer(1e-3, schedule, weight_decay=0.1)
    model, batch = load_reference("pg1"), _batch()
    text, mask_ar, mask_loss = (jnp.asarray(x) for x in batch[1:])

    def loss(params: Any) -> jax.Array:
        logits = Network(model.config).apply(
            {"params": params}, batch.images, text[:, :-1], mask_ar[:, :-1]
        )
        logp = jax.nn.log_softmax(logits)  # type: ignore[arg-type]
        nll = -jnp.take_along_axis(logp, text[:, 1:, None], axis=-1)[..., 0]
        weights = mask_loss[:, 1:]
        return ((nll * weights).sum(1) / weights.sum(1)).mean()

    gradients = _flat(jax.grad(loss)(model.params))
    norm = np.sqrt(sum(np.square(g).sum() for g in gradients.values()))
    state, metrics = make_train_step(Network(model.config), optimizer)(_state(optimizer), batch)
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["loss"] == pytest.approx(float(loss(model.params)), rel=1e-5)
    before = _flat(model.params)
    for path, after in _flat(state.params).items():
        clipped = gradients[path] * min(1.0, 1.0 / norm)
        update = 1e-3 * clipped / (np.abs(clipped) + 1e-8)
        if path.endswith("/kernel"):
            update = update + 0.1 * before[path]
        # Where a gradient is next to nothing, its sign is noise.
        clear = np.abs(clipped) > 1e-6
        want = before[path] - 0.5 * update
        np.testing.assert_allclose(after[clear], want[clear], atol=1e-5, err_msg=path)


def test_training_lowers_the_loss() -> None:
    optimizer = make_optimizer(3e-3, optax.constant_schedule(1.0))
    step = make_train_step(Network(load_reference("pg1").config), optimizer)
    state, batch = _state(optimizer), _batch()
    losses = []
    for _ in range(20):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert int(state.step) == 20


def test_rematerialisation_changes_no_gradient() -> None:
    config, batch = load_reference("pg1").config, _batch()
    norms = []
    for remat in (False, True):
        optimizer = make_optimizer(1e-3, optax.constant_schedule(1.0))
        step = make_train_step(Network(config, remat=remat), optimizer)
        norms.append(float(step(_state(optimizer), batch)[1]["grad_norm"]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_label_smoothing_spreads_its_share_over_all_other_tokens() -> None:
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 5)), jnp.float32)
    logp = np.asarray(jax.nn.log_softmax(logits))[0, 0]
    target = np.full(5, 0.2 / 4)
    target[2] = 0.8
    loss = suffix_loss(logits, jnp.array([[2]]), jnp.ones((1, 1)), label_smoothing=0.2)
    assert float(loss) == pytest.approx(-(target * logp).sum(), rel=1e-5)


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    schedule = learning_schedule(100, warmup=0.05)
    assert float(schedule(0)) == 0
    assert float(schedule(5)) == 1
    assert float(schedule(100)) == pytest.approx(0, abs=1e-6)
    assert float(schedule(52)) == pytest.approx(0.5, abs=0.02)


def test_gradients_are_finite_in_bfloat16() -> None:
    config = load_reference("pg2").config
    params = jax.tree.map(lambda x: x.astype(jnp.float32), load_reference("pg2").params)
    optimizer = make_optimizer(1e-3, optax.constant_schedule(1.0))
    step = make_train_step(Network(config, dtype=jnp.bfloat16), optimizer)
    want = expected("pg2")
    batch = Batch(want["image"], want["text"], want["mask_ar"], want["mask_loss"])
    state, metrics = step(TrainState(jnp.int32(0), params, optimizer.init(params)), batch)
    assert np.isfinite(float(metrics["grad_norm"]))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
