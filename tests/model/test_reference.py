"""The network computes what the published implementations compute."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paliflow.model import MaskDecoder, PaliGemma
from paliflow.model.config import RESOLUTIONS, VARIANTS
from paliflow.model.loss import suffix_losses
from paliflow.model.network import Network
from paliflow.model.weights import expected_shapes, infer_config
from paliflow.tests.model.conftest import REFERENCE, expected, load_reference

Reference = tuple[PaliGemma, dict[str, Any]]


def test_image_tokens_equal_big_visions(big_vision: Reference) -> None:
    model, want = big_vision
    np.testing.assert_allclose(model.encode_images(want["image"]), want["image_tokens"], atol=2e-5)


def test_teacher_forced_logits_equal_big_visions(big_vision: Reference) -> None:
    model, want = big_vision
    logits = model.logits(want["image"], want["text"], want["mask_ar"])
    np.testing.assert_allclose(logits, want["logits"], atol=1e-4)


def test_greedy_tokens_of_ragged_prompts_equal_big_visions(big_vision: Reference) -> None:
    model, want = big_vision
    result = model.generate(
        want["image"], want["prompt"], want["prompt_mask"], max_new_tokens=16, eos_id=None
    )
    np.testing.assert_array_equal(result.tokens, want["decoded"])


def test_logprobs_of_greedy_tokens_equal_big_visions() -> None:
    # Gemma 2's are not compared: the reference caps them from the second step on.
    model, want = load_reference("pg1"), expected("pg1")
    result = model.generate(
        want["image"], want["prompt"], want["prompt_mask"], max_new_tokens=16, eos_id=None
    )
    np.testing.assert_allclose(result.logprobs, want["decoded_logp"], atol=1e-4)


def test_a_final_softcap_holds_for_every_decoded_token() -> None:
    model, want = load_reference("pg2", final_logits_softcap=30.0), expected("pg2")
    result = model.generate(
        want["image"], want["prompt"], want["prompt_mask"], max_new_tokens=16, eos_id=None
    )
    np.testing.assert_allclose(result.logprobs[:, 1:], want["decoded_logp"][:, 1:], atol=1e-4)


def _text_inputs(want: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    images = want["pixel_values"].transpose(0, 2, 3, 1)
    image_tokens = want["image_features"].shape[1]
    text, valid, suffix = (
        want[name][:, image_tokens:] for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    return images, text, valid.astype(bool), suffix.astype(bool)


def test_logits_equal_transformers(hugging_face: Reference) -> None:
    model, want = hugging_face
    images, text, valid, suffix = _text_inputs(want)
    logits = model.logits(images, text, np.where(valid, suffix, 1))
    wanted = want["logits"][:, -text.shape[1] :]
    np.testing.assert_allclose(np.asarray(logits)[valid], wanted[valid], atol=1e-4)


def test_greedy_tokens_equal_transformers(hugging_face: Reference) -> None:
    model, want = hugging_face
    images, text, valid, suffix = _text_inputs(want)
    prompt = valid & ~suffix
    result = model.generate(
        images, np.where(prompt, text, 0), prompt, max_new_tokens=16, eos_id=None
    )
    np.testing.assert_array_equal(result.tokens, want["decoded"])


def test_image_tokens_equal_transformers(hugging_face: Reference) -> None:
    model, want = hugging_face
    images = want["pixel_values"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(model.encode_images(images), want["image_features"], atol=2e-5)


def test_masks_equal_the_reference_decoders() -> None:
    decoder = MaskDecoder.from_checkpoint(REFERENCE / "vae.weights.npz")
    want = np.load(REFERENCE / "vae.expected.npz")
    np.testing.assert_allclose(decoder(want["codes"]), want["masks"][..., 0], atol=1e-4)


def test_loss_is_the_per_example_mean_over_the_suffix(big_vision: Reference) -> None:
    _, want = big_vision
    logits = want["logits"][:, :-1].astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets, weights = want["text"][:, 1:], want["mask_loss"][:, 1:]
    nll = -np.take_along_axis(logp, targets[..., None], -1)[..., 0]
    by_hand = (nll * weights).sum(1) / weights.sum(1)
    logits, same = jnp.asarray(want["logits"][:, :-1]), jnp.eye(want["logits"].shape[-1])
    losses = suffix_losses(logits, same, jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose(losses, by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name.endswith("-224") else [pytest.mark.slow])
        for name in VARIANTS
    ],
)
def test_published_sizes_have_their_shapes(name: str) -> None:
    config = VARIANTS[name]
    shapes = expected_shapes(config)
    assert len(shapes) == (34 if name.startswith("paligemma2") else 32)
    assert infer_config(shapes) == config
    assert config.image_size in RESOLUTIONS


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("-224")])
def test_published_sizes_score_the_published_vocabulary(name: str) -> None:
    config = VARIANTS[name]
    images = jax.ShapeDtypeStruct((2, config.image_size, config.image_size, 3), np.float32)
    text = jax.ShapeDtypeStruct((2, 8), np.int32)
    network = Network(config)
    logits, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), images, text, text)
    assert logits.shape == (2, 8, 257_152)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("paligemma-3b-224", 2_923_335_408),
        ("paligemma2-3b-448", 3_033_000_000),
        ("paligemma2-10b-896", 9_667_000_000),
        ("paligemma2-28b-224", 27_650_000_000),
    ],
)
def test_published_sizes_have_their_number_of_parameters(name: str, count: int) -> None:
    total = sum(int(np.prod(shape)) for shape in expected_shapes(VARIANTS[name]).values())
    assert total == pytest.approx(count, rel=0 if count == 2_923_335_408 else 5e-4)
