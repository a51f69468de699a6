"""Choices are as likely as teacher forcing says of each by itself, however many there are."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

from paliflow.benchmarks.choices import batches, furthest_from_teacher_forcing
from paliflow.model import PaliGemma, Tokenizer
from paliflow.model.choices import columns_of, encode_choices, tabulate
from paliflow.tests.model.conftest import expected, load_reference
from paliflow.tests.model.test_tokenizer import plain_model

EOS = 1
LISTS = (
    # One begins another, several share a beginning, one is a single token, one is long.
    [[40, 41, 42], [40, 41], [7], [40, 50, 51, 52, 53, 54], [60, 61], [60, 62], [300, 41, 42]],
    [[100], [101], [99]],
)
WHICH = np.array([0, 1, 0])


def teacher_forced(
    model: PaliGemma, want: dict[str, Any], rows: Sequence[int], choices: Sequence[list[int]]
) -> np.ndarray[Any, Any]:
    """The log-probability of each token of each choice, its end included, and 0 after it."""
    lengths = want["prompt_mask"].sum(1)
    longest = max(map(len, choices)) + 1
    text = np.zeros((len(rows), want["prompt"].shape[1] + longest), np.int32)
    mask_ar = np.ones_like(text)
    for place, (row, choice) in enumerate(zip(rows, choices, strict=True)):
        own = [*want["prompt"][row, : lengths[row]], *choice, EOS]
        text[place, : len(own)] = own
        mask_ar[place, : lengths[row]] = 0
    logits = model.logits(want["image"][list(rows)], text, mask_ar)
    logprobs = np.asarray(jax.nn.log_softmax(logits))
    steps = np.zeros((len(rows), longest))
    for place, (row, choice) in enumerate(zip(rows, choices, strict=True)):
        for step, token in enumerate([*choice, EOS]):
            steps[place, step] = logprobs[place, lengths[row] - 1 + step, token]
    return steps


def scored(model: PaliGemma, want: dict[str, Any], most_nodes: int) -> list[Any]:
    """Of each row, the log-probabilities of its list's choices and of their least tokens."""
    table = tabulate(LISTS, EOS, most_nodes)
    tokens = model.encode_images(want["image"])
    scores = model.score_choices(tokens, want["prompt"], want["prompt_mask"], table, WHICH)
    columns = [columns_of(choices, table, most_nodes) for choices in LISTS]
    return [
        (
            np.asarray(scores.logprob)[row, columns[which]],
            np.asarray(scores.least)[row, columns[which]],
        )
        for row, which in enumerate(WHICH)
    ]


def check(
    model: PaliGemma, want: dict[str, Any], most_nodes: int, atol: float, rtol: float = 1e-7
) -> None:
    pairs = [(row, choice) for row, which in enumerate(WHICH) for choice in LISTS[which]]
    steps = teacher_forced(model, want, *zip(*pairs, strict=True))
    found = scored(model, want, most_nodes)
    logprob, least = (np.concatenate(each) for each in zip(*found, strict=True))
    np.testing.assert_allclose(np.exp(logprob), np.exp(steps.sum(1)), atol=atol)
    np.testing.assert_allclose(logprob, steps.sum(1), rtol, atol)
    np.testing.assert_allclose(least, steps.min(1), rtol, atol)


@pytest.mark.parametrize(("name", "most_nodes"), [("pg2", 6)])
def test_choices_equal_teacher_forcing_on_ragged_prompts(name: str, most_nodes: int) -> None:
    check(load_reference(name), expected(name), most_nodes, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pg1", "pg2", "pg2_27b"])
@pytest.mark.parametrize("most_nodes", [6, 256])
def test_choices_equal_teacher_forcing_in_every_variant(name: str, most_nodes: int) -> None:
    check(load_reference(name), expected(name), most_nodes, 1e-5)


@pytest.mark.slow
def test_choices_equal_teacher_forcing_in_int8() -> None:
    # Rounding to int8 steps where float32 differs in its last bits.
    check(load_reference("pg2", dtype="int8"), expected("pg2"), 256, 0.1)


@pytest.mark.slow
def test_choices_equal_teacher_forcing_on_a_thousand_scenes() -> None:
    images, _ = batches(1008, size=56)
    assert sum(map(len, images)) == 1008
    probability, logprob = furthest_from_teacher_forcing(images, ["1", "2", "3", "12"])
    assert 0 < probability < 1e-5
    assert 0 < logprob < 1e-5


EIGHT_DEVICES = """
import jax, numpy as np
from dataclasses import replace
from paliflow.model.xla import Backend
from paliflow.tests.model import test_choices as t
assert len(jax.devices()) == 8
one, want = t.load_reference("pg2"), t.expected("pg2")
rows = np.arange({batch}) % 3
want = {{name: want[name][rows] for name in ("image", "prompt", "prompt_mask")}}
t.WHICH = t.WHICH[rows]
model = t.load_reference("pg2", model_parallel={model_parallel})
model = replace(model, backend=Backend(slice_tokens=60))
for most_nodes in (6, 256):
    # Sums that are shared among devices differ in float32's last bits, here of numbers up to 50.
    t.check(model, want, most_nodes, 1e-5, 1e-6 if {model_parallel} > 1 else 1e-7)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("model_parallel", "batch"), [(1, 32), (4, 6)])
def test_choices_equal_teacher_forcing_on_eight_devices_in_slices(
    model_parallel: int, batch: int
) -> None:
    code = EIGHT_DEVICES.format(model_parallel=model_parallel, batch=batch)
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_long_list_is_cut_into_groups_that_hold_each_choice_once() -> None:
    numbers = [[1, *map(int, str(n))] for n in range(1000)]
    table = tabulate([numbers], EOS, 256)
    columns = columns_of(numbers, table)
    assert table.tokens.shape[:2] == (1, 4)
    assert table.nodes == 256
    assert len(set(columns.tolist())) == 1000
    # Each path spells its choice: the tokens at its steps, the end token last.
    flat = [np.concatenate([table.first[0, g], table.children[0, g].ravel()]) for g in range(4)]
    paths = table.paths[0].reshape(-1, table.paths.shape[-1])
    for choice, column in zip(numbers, columns, strict=True):
        spelt = flat[column // table.paths.shape[2]][paths[column][: len(choice) + 1]]
        assert spelt.tolist() == [*choice, EOS]


def test_choices_that_the_tokenizer_cannot_tell_apart_or_write_are_refused() -> None:
    model = plain_model(
        byte_fallback=False,
        normalization_rule_name="nmt_nfkc",
        vocab_size=60,
        user_defined_symbols=["\n", "1"],
    )
    tokenizer = Tokenizer(model)
    assert encode_choices(tokenizer, ["a", "cat"]) == [*map(tokenizer.encode, ["a", "cat"])]
    with pytest.raises(ValueError, match="choice '桜': the tokenizer cannot write it"):
        encode_choices(tokenizer, ["a", "桜"])
    with pytest.raises(ValueError, match="choices '1' and '¹' are the same"):
        encode_choices(tokenizer, ["1", "¹"])
