"""Generation agrees with teacher forcing, stops where it should, samples as it says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paliflow.model import Greedy, Nucleus, PaliGemma, Temperature, TopK
from paliflow.model.network import attention_mask
from paliflow.tests.model.conftest import expected, load_reference

STEPS = 16
"""As many as the reference has decoded, so that few programs are compiled."""


def _forced(model: PaliGemma, images: Any, want: dict[str, Any], tokens: Any) -> list[Any]:
    """Of each row, the log-probabilities [M, V] that `logits` gives for each of its new tokens."""
    steps, lengths = tokens.shape[1], want["prompt_mask"].sum(1)
    width = int(lengths.max()) + steps
    text, mask_ar = np.zeros((3, width), np.int32), np.ones((3, width), np.int32)
    for row, length in enumerate(lengths):
        text[row, :length], mask_ar[row, :length] = want["prompt"][row, :length], 0
        text[row, length : length + steps] = tokens[row]
    logp = np.asarray(jax.nn.log_softmax(model.logits(images, text, mask_ar)))
    starts = lengths - 1
    return [own[start : start + steps] for own, start in zip(logp, starts, strict=True)]


@pytest.mark.parametrize(
    "name", ["pg2", *(pytest.param(x, marks=pytest.mark.slow) for x in ("pg1", "pg2_27b"))]
)
def test_greedy_decoding_equals_teacher_forcing_on_ragged_prompts(name: str) -> None:
    model, want = load_reference(name), expected(name)
    result = model.generate(
        want["image"], want["prompt"], want["prompt_mask"], max_new_tokens=STEPS, eos_id=None
    )
    for row, logp in enumerate(_forced(model, want["image"], want, result.tokens)):
        np.testing.assert_array_equal(logp.argmax(-1), result.tokens[row])
        np.testing.assert_allclose(logp.max(-1), result.logprobs[row], atol=1e-4)


def test_padding_a_prompt_changes_nothing() -> None:
    model, want = load_reference("pg2"), expected("pg2")
    prompt, mask = want["prompt"], want["prompt_mask"]
    wider = ((0, 0), (0, 7))
    tokens = model.encode_images(want["image"])
    options: dict[str, Any] = {"max_new_tokens": STEPS, "eos_id": None}
    narrow = model.generate_from_tokens(tokens, prompt, mask, **options)
    padded = model.generate_from_tokens(
        tokens, np.pad(prompt, wider, constant_values=5), np.pad(mask, wider), **options
    )
    np.testing.assert_array_equal(narrow.tokens, padded.tokens)
    np.testing.assert_allclose(narrow.logprobs, padded.logprobs, atol=1e-4)


def test_a_row_ends_at_its_end_token_and_holds_zeros_after_it() -> None:
    model, want = load_reference("pg1"), expected("pg1")
    free = model.generate(
        want["image"], want["prompt"], want["prompt_mask"], max_new_tokens=STEPS, eos_id=None
    )
    eos = int(free.tokens[0, 3])
    result = model.generate(
        want["image"], want["prompt"], want["prompt_mask"], max_new_tokens=STEPS, eos_id=eos
    )
    for row in range(3):
        hits = np.flatnonzero(np.asarray(free.tokens[row]) == eos)
        length = hits[0] + 1 if len(hits) else STEPS
        assert result.lengths[row] == length
        assert bool(result.finished[row]) == bool(len(hits))
        np.testing.assert_array_equal(result.tokens[row, :length], free.tokens[row, :length])
        assert not np.any(result.tokens[row, length:])
        assert not np.any(result.logprobs[row, length:])


def test_one_new_token_needs_no_loop() -> None:
    model, want = load_reference("pg1"), expected("pg1")
    result = model.generate(want["image"], want["prompt"], want["prompt_mask"], max_new_tokens=1)
    np.testing.assert_array_equal(result.tokens[:, 0], want["decoded"][:, 0])


_VARIATIONS = [("pg1", 1), ("pg1", 16), ("pg2", 1), ("pg2", 16), ("pg2_27b", 1), ("pg2_27b", 16)]


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("pg2", 3),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in _VARIATIONS),
    ],
)
def test_of_a_clip_the_language_model_sees_each_frames_tokens_in_a_row(
    name: str, frames: int
) -> None:
    # As the reference does: frames folded into the batch, their tokens concatenated.
    model, want = load_reference(name), expected(name)
    pick = (np.arange(frames)[None] + np.arange(3)[:, None]) % 3  # which image is which frame
    clip = want["image"][pick]
    tokens = want["image_tokens"][pick].reshape(3, -1, want["image_tokens"].shape[-1])
    np.testing.assert_allclose(model.encode_images(clip), tokens, atol=2e-5)
    options: dict[str, Any] = {"max_new_tokens": STEPS, "eos_id": None}
    decoded = model.generate_from_tokens(tokens, want["prompt"], want["prompt_mask"], **options)
    if frames == 1:
        logits = model.logits(clip, want["text"], want["mask_ar"])
        np.testing.assert_allclose(logits, want["logits"], atol=1e-4)
        np.testing.assert_array_equal(decoded.tokens, want["decoded"])
    for logp, own in zip(_forced(model, clip, want, decoded.tokens), decoded.tokens, strict=True):
        np.testing.assert_array_equal(logp.argmax(-1), own)


def test_a_prefix_sees_itself_whole_and_a_suffix_is_causal() -> None:
    mask = attention_mask(jnp.array([[0, 0, 0, 1, 1]]))[0]
    wanted = [[1, 1, 1, 0, 0]] * 3 + [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(mask, np.array(wanted, bool))


def test_invalid_positions_neither_see_nor_are_seen() -> None:
    mask = attention_mask(jnp.zeros((1, 3), int), jnp.array([[True, False, True]]))[0]
    np.testing.assert_array_equal(mask, [[True, False, True], [False] * 3, [True, False, True]])


LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))


def _draws(sampler: Any, count: int = 2000) -> np.ndarray[Any, Any]:
    keys = jax.random.split(jax.random.key(0), count)
    tokens = np.asarray(jax.vmap(lambda key: sampler(LOGITS, key))(keys))
    return np.bincount(tokens[:, 0], minlength=4) / count


def test_greedy_takes_the_likeliest() -> None:
    assert Greedy()(LOGITS, jax.random.key(0)).tolist() == [0]


@pytest.mark.parametrize(
    ("sampler", "shares"),
    [
        (Temperature(1.0), [0.5, 0.3, 0.15, 0.05]),
        (Temperature(0.5), np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
        (TopK(2), [0.625, 0.375, 0, 0]),
        (TopK(9), [0.5, 0.3, 0.15, 0.05]),
        (Nucleus(0.7), [0.625, 0.375, 0, 0]),
        (Nucleus(0.1), [1, 0, 0, 0]),
        (Nucleus(1.0), [0.5, 0.3, 0.15, 0.05]),
    ],
)
def test_samplers_draw_in_proportion(sampler: Any, shares: list[float]) -> None:
    drawn = _draws(sampler)
    np.testing.assert_allclose(drawn, shares, atol=0.04)
    assert not np.any(drawn[np.asarray(shares) == 0])


def test_the_seed_decides_what_is_sampled() -> None:
    model, want = load_reference("pg1"), expected("pg1")
    tokens = model.encode_images(want["image"])

    def sample(seed: int) -> list[list[int]]:
        result = model.generate_from_tokens(
            *(tokens, want["prompt"], want["prompt_mask"]),
            max_new_tokens=8,
            sampler=Temperature(2.0),
            seed=seed,
        )
        drawn: list[list[int]] = result.tokens.tolist()
        return drawn

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_images_of_another_size_are_refused_with_the_size_that_is_taken() -> None:
    with pytest.raises(ValueError, match=r"images are \(28, 28, 3\), the checkpoint takes \(56"):
        load_reference("pg1").encode_images(np.zeros((1, 28, 28, 3), np.float32))
