"""The training step does what the published recipe says."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st

from paliflow.model.loss import Batch, suffix_losses
from paliflow.model.network import Network
from paliflow.model.optimizer import learning_schedule
from paliflow.model.recipe import Recipe
from paliflow.model.rounding import round_stochastically
from paliflow.model.sharding import global_mesh
from paliflow.model.train import Trainer
from paliflow.tests.model.conftest import config_of, expected, reference_params


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small vocabulary in as many chunks as there may be of a large one."""
    monkeypatch.setattr("paliflow.model.loss.CHUNK", 200)


def _batch(name: str) -> Batch:
    want = expected(name)
    return Batch(want["image"], want["text"], want["mask_ar"], want["mask_loss"])


def _params(name: str, dtype: str = "float32") -> dict[str, Any]:
    """The weights of two layers, which is what most of these tests train."""
    return reference_params(name, dtype, layers=2)


@cache
def _trainer(name: str, layers: int = 2, **recipe: Any) -> Trainer:
    options: dict[str, Any] = {"total_steps": 10, "learning_rate": 1e-3, "dtype": "float32"}
    options |= recipe
    config = config_of(reference_params(name, layers=layers))
    return Trainer(config, Recipe(**options), global_mesh())


_BFLOAT16: dict[str, Any] = {
    "dtype": "bfloat16",
    "frozen": ("img/.*",),
    "dropout": 0.1,
    "remat": True,
}


def _flat(params: Any) -> dict[str, np.ndarray[Any, Any]]:
    flat = traverse_util.flatten_dict(params, sep="/")
    return {path: np.array(leaf) for path, leaf in flat.items()}


def _adam_by_hand(
    loss: Callable[[Any], jax.Array], params: Any, decays: Callable[[str], bool]
) -> tuple[float, float, dict[str, Any], dict[str, Any]]:
    """Loss, gradient's norm, where one step leads (lr 1e-3, decay 0.1), and where that is sure."""
    value, grad = jax.jit(jax.value_and_grad(loss))(params)
    before, gradients = _flat(params), _flat(grad)
    norm = float(np.sqrt(sum(np.square(g).sum() for g in gradients.values())))
    after, clear = {}, {}
    for path, gradient in gradients.items():
        clipped = gradient * min(1.0, 1.0 / norm)
        mean, square = 0.1 * clipped / (1 - 0.9), 0.001 * clipped**2 / (1 - 0.999)
        update = 1e-3 * mean / (np.sqrt(square) + 1e-8)
        after[path] = before[path] - update - (0.1 * before[path] if decays(path) else 0)
        # Where a gradient is next to nothing, its sign is noise.
        clear[path] = np.abs(clipped) > 1e-6
    return float(value), norm, after, clear


def _reference_loss(network: Network, params: Any, batch: Batch) -> jax.Array:
    text, mask_ar, mask_loss = (jnp.asarray(x) for x in batch[1:])
    logits: Any = network.apply({"params": params}, batch.images, text[:, :-1], mask_ar[:, :-1])
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), text[:, 1:, None], axis=-1)[..., 0]
    weights = mask_loss[:, 1:]
    return ((nll * weights).sum(1) / weights.sum(1)).mean()


_SOME_FROZEN = r"img/(?!head).*", r"llm/embedder/.*"


@pytest.mark.parametrize(
    ("frozen", "remat"),
    [
        ((), True),
        pytest.param((), False, marks=pytest.mark.slow),
        pytest.param(_SOME_FROZEN, True, marks=pytest.mark.slow),
    ],
)
def test_one_step_equals_adam_by_hand(frozen: tuple[str, ...], remat: bool) -> None:
    stored, batch = _params("pg1"), _batch("pg1")
    trainer = _trainer("pg1", weight_decay=0.1, frozen=frozen, remat=remat)
    held = {p: x for p, x in _flat(stored).items() if p not in trainer.trained}
    trained = {p: x for p, x in _flat(stored).items() if p in trainer.trained}
    assert bool(held) == bool(frozen)

    def loss(flat: Any) -> jax.Array:
        params = traverse_util.unflatten_dict(flat | jax.tree.map(jnp.asarray, held), sep="/")
        return _reference_loss(Network(trainer.config), params, batch)

    value, norm, want, clear = _adam_by_hand(loss, trained, lambda path: path.endswith("/kernel"))
    state, rest = trainer.init(stored)
    state, metrics = trainer.step(state, rest, batch)
    assert metrics["loss"] == pytest.approx(value, rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["learning_rate"] == pytest.approx(1e-3)
    assert metrics["examples"] == len(batch.text)  # type: ignore[arg-type]
    after = _flat(state.params)
    assert after.keys() == want.keys()
    for path, leaf in after.items():
        sure = clear[path]
        np.testing.assert_allclose(leaf[sure], want[path][sure], 0, 1e-5, err_msg=path)
    for path, leaf in _flat(rest).items():
        np.testing.assert_array_equal(leaf, held[path], err_msg=path)
    moments = {x.shape for x in jax.tree.leaves(state.opt_state) if x.ndim}
    assert moments == {x.shape for x in trained.values()}
    assert trainer.step(state, rest, batch)[1]["loss"] < 0.95 * metrics["loss"]


_LORA = {
    "llm/layers/attn/q_einsum/w": "ldr,lrHh->lHdh",
    "llm/layers/attn/kv_einsum/w": "lpdr,lprKh->lpKdh",
    "llm/layers/attn/attn_vec_einsum/w": "lHhr,lrd->lHhd",
    "llm/layers/mlp/gating_einsum": "lpdr,lprm->lpdm",
    "llm/layers/mlp/linear": "lmr,lrd->lmd",
    "img/Transformer/encoderblock/MultiHeadDotProductAttention_0/key/kernel": "ldr,lrHh->ldHh",
    "img/Transformer/encoderblock/MultiHeadDotProductAttention_0/out/kernel": "lHhr,lrd->lHhd",
    "img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel": "ldr,lrm->ldm",
}


def test_adapters_step_as_the_products_they_stand_for() -> None:
    """The reference merges each adapter into its weight and differentiates through that."""
    stored, batch = _params("pg2"), _batch("pg2")
    matrices = r"llm/layers/(attn|mlp)/.*|img/.*encoderblock/.*/(key|out|Dense_0)/kernel"
    trainer = _trainer("pg2", lora_rank=2, lora_matrices=matrices, remat=True)
    base = _flat(stored)
    assert trainer.trained == {f"{path}_lora_{x}" for path in _LORA for x in "ab"}

    def merge(flat: Any) -> Any:
        added = {
            path: base[path] + jnp.einsum(equation, flat[f"{path}_lora_a"], flat[f"{path}_lora_b"])
            for path, equation in _LORA.items()
        }
        return traverse_util.unflatten_dict(jax.tree.map(jnp.asarray, base | added), sep="/")

    def loss(flat: Any) -> jax.Array:
        return _reference_loss(Network(trainer.config), merge(flat), batch)

    state, frozen = trainer.init(stored)
    for path, leaf in _flat(trainer.merged(state, frozen)).items():
        np.testing.assert_array_equal(leaf, base[path], err_msg=path)  # B is zero
    # Where it is not, as after some steps, both A and B have gradients.
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + random.normal(0, 0.02, x.shape), state.params)
    state = replace(state, params=jax.tree.map(jnp.float32, params))

    value, norm, want, clear = _adam_by_hand(loss, _flat(state.params), lambda _: False)
    state, metrics = trainer.step(state, frozen, batch)
    assert metrics["loss"] == pytest.approx(value, rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    after = _flat(state.params)
    for path, leaf in after.items():
        sure = clear[path]
        np.testing.assert_allclose(leaf[sure], want[path][sure], 0, 1e-5, err_msg=path)
    by_hand = _flat(merge(after))
    for path, leaf in _flat(trainer.merged(state, frozen)).items():
        np.testing.assert_allclose(leaf, by_hand[path], rtol=0, atol=1e-6, err_msg=path)


def test_the_loss_is_the_published_one_of_the_published_logits() -> None:
    want, batch = expected("pg2"), _batch("pg2")
    logits = want["logits"][:, :-1].astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -np.take_along_axis(logp, want["text"][:, 1:, None], -1)[..., 0]
    weights = want["mask_loss"][:, 1:]
    trainer = _trainer("pg2", layers=3)
    total, examples = trainer.loss(trainer.merged(*trainer.init(reference_params("pg2"))), batch)
    assert float(total) == pytest.approx(((nll * weights).sum(1) / weights.sum(1)).sum(), rel=1e-5)
    assert int(examples) == len(weights)


@pytest.mark.slow
def test_dropout_repeats_itself_from_a_seed_and_a_step() -> None:
    batch = _batch("pg2")
    trainer = _trainer("pg2", **_BFLOAT16)
    state, frozen = trainer.init(_params("pg2"))
    states, losses = [], []
    for _ in range(3):
        states.append(jax.tree.map(jnp.copy, state))
        state, metrics = trainer.step(state, frozen, batch)
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 3
    again = jax.tree.map(jnp.copy, states[1])
    assert float(trainer.step(again, frozen, batch)[1]["loss"]) == losses[1]
    later = replace(states[1], step=states[1].step + 1)
    assert float(trainer.step(later, frozen, batch)[1]["loss"]) != losses[1]


@pytest.mark.slow
def test_a_bfloat16_checkpoint_is_trained_in_float32() -> None:
    stored = _params("pg2", "bfloat16")
    trainer = _trainer("pg2", **_BFLOAT16)
    state, frozen = trainer.init(stored)
    before = _flat(state.params)
    state, metrics = trainer.step(state, frozen, _batch("pg2"))
    assert np.isfinite(float(metrics["grad_norm"]))
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype("float32")}
    assert all(np.isfinite(x).all() for x in floats)
    assert all((before[path] != after).any() for path, after in _flat(state.params).items())
    for path, leaf in _flat(frozen).items():
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(leaf, _flat(stored)[path])
    assert _flat(trainer.merged(state, frozen)).keys() == _flat(stored).keys()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"frozen": ("img/.*", "vit/.*")}, r"frozen='vit/.\*' matches no parameter.*img/"),
        ({"frozen": (".*",)}, r"frozen=\['.\*'\] leaves nothing to train"),
        ({"weight_decay": 0.1, "decayed": "kernel"}, "decayed='kernel' matches no parameter"),
        (
            {"lora_rank": 2, "lora_matrices": "q_proj"},
            "lora_matrices='q_proj' matches no.*q_ein",
        ),
        ({"lora_rank": 2, "lora_matrices": "llm/.*"}, "llm/.*, which can have no adapter"),
        ({"warmup_steps": 10}, "warmup_steps=10 has to be less than 10"),
    ],
)
def test_a_recipe_that_means_nothing_says_what_is_wrong(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _trainer("pg1", **recipe)


def test_label_smoothing_spreads_its_share_over_all_other_tokens() -> None:
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 5)), jnp.float32)
    logp = np.asarray(jax.nn.log_softmax(logits))[0, 0]
    target = np.full(5, 0.2 / 4)
    target[2] = 0.8
    losses = suffix_losses(
        logits, jnp.eye(5), jnp.array([[2]]), jnp.ones((1, 1)), label_smoothing=0.2
    )
    assert losses[0] == pytest.approx(-(target * logp).sum(), rel=1e-5)


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    schedule = learning_schedule(100, warmup_steps=5)
    assert float(schedule(0)) == 0
    assert float(schedule(5)) == 1
    assert float(schedule(100)) == pytest.approx(0, abs=1e-6)
    assert float(schedule(52)) == pytest.approx(0.5, abs=0.02)
    assert float(learning_schedule(1, warmup_steps=0)(0)) == 1


@pytest.mark.slow
def test_a_short_training_of_a_bfloat16_checkpoint_keeps_its_decrease_in_loss() -> None:
    """Its updates are below half a step of bfloat16: rounded to the nearest most would be lost."""
    trainer = _trainer("pg1", weight_decay=0.1, frozen=(), remat=True)
    batch, base = _batch("pg1"), _params("pg1", "bfloat16")

    def loss(params: Any) -> float:
        return float(trainer.loss(jax.tree.map(lambda x: x.astype("float32"), params), batch)[0])

    start, _ = trainer.init(base)
    state, frozen = trainer.init(base)
    state, _ = trainer.step(state, frozen, batch)
    # A hundredth of a step at a rate of 1e-3 stands for one at 1e-5, which would be compiled anew.
    state = state.replace(
        params=jax.tree.map(lambda x, y: x + 0.01 * (y - x), start.params, state.params)
    )
    trained = trainer.merged(state, frozen)
    exported = dict(trainer.exported(state, frozen, "bfloat16"))
    assert {leaf.dtype for leaf in exported.values()} == {jnp.dtype("bfloat16")}
    decrease = loss(trainer.merged(start, frozen)) - loss(trained)
    kept = loss(traverse_util.unflatten_dict(exported, sep="/")) - loss(trained)
    lost = loss(jax.tree.map(lambda x: x.astype("bfloat16"), trained)) - loss(trained)
    assert kept < 0.4 * decrease
    assert lost > 0.5 * decrease
    again = dict(trainer.exported(state, frozen, "bfloat16"))
    for path, leaf in exported.items():
        np.testing.assert_array_equal(leaf, again[path], err_msg=path)


@given(st.floats(width=32), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_stochastic_rounding_takes_a_neighbour(value: float, seed: int) -> None:
    x = np.full(64, value, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(round_stochastically(x, np.uint32(seed))).astype(np.float32)
    low = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    high = ((low.view(np.uint32)) + np.uint32(0x10000)).view(np.float32)
    if np.isfinite(value):
        assert np.isin(found, [low[0], x[0] if low[0] == x[0] else high[0]]).all()
    else:
        np.testing.assert_array_equal(found, x)


def test_stochastic_rounding_is_right_on_average() -> None:
    step = 2.0**-7  # of bfloat16 between 1 and 2
    for share in (0.1, 0.5, 0.9):
        x = np.full(100_000, 1 + share * step, np.float32)
        found = np.asarray(round_stochastically(x, np.uint32(7))).astype(np.float64)
        assert found.mean() == pytest.approx(1 + share * step, abs=0.01 * step)
