"""Closed detection: whole boxes of labels that were asked for, whatever the weights would say."""

import re
from typing import Any

import jax
import numpy as np
import pytest
from numpy.typing import NDArray

from paliflow.model import (
    BUNDLED_CHECKPOINT,
    Greedy,
    PaliGemma,
    Sampler,
    Temperature,
    Tokenizer,
    TopK,
    parse_detections,
)
from paliflow.model.closed import closed_boxes
from paliflow.model.generate import NEARBY

TOKENIZER = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
LABELS = (["digit"], ["7", "12 cats", "12"], ["8"])
MASKS = (False, False, True)
PROMPT = np.array(TOKENIZER.encode_prompt("detect digit", 16), np.int32)


@pytest.fixture(scope="module")
def model() -> PaliGemma:
    return PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT, dtype="float32")


def noise(model: PaliGemma, rows: int, seed: int = 0) -> NDArray[np.float32]:
    size = model.config.image_size
    return np.random.default_rng(seed).uniform(-1, 1, (rows, size, size, 3)).astype(np.float32)


def closed(model: PaliGemma, rows: int, tokens: int, sampler: Sampler, seed: int = 0) -> Any:
    """Answers about noise: row n is asked for the labels of n % 3."""
    grammar = closed_boxes(TOKENIZER, LABELS, MASKS, tokens)
    prompt = np.tile(PROMPT, (rows, 1))
    result = model.generate_from_tokens(
        *(model.encode_images(noise(model, rows, seed)), prompt, np.ones_like(prompt, bool)),
        max_new_tokens=tokens,
        sampler=sampler,
        seed=seed,
        grammar=grammar[0],
        begins=np.array(grammar[1])[np.arange(rows) % 3],
    )
    return jax.tree.map(np.asarray, result)


def boxes(result: Any, tokens: int) -> int:
    """How many boxes there are, all of them whole and of the labels that were asked for."""
    found = 0
    for row, (ids, length) in enumerate(zip(result.tokens, result.lengths, strict=True)):
        assert result.finished[row]
        assert length <= tokens
        text = TOKENIZER.decode(ids[: length - 1].tolist())
        pieces = text.split(" ; ") if text else []
        detections = parse_detections(text, 100, 100)
        assert len(detections) == len(pieces)
        assert {d.label for d in detections} <= set(LABELS[row % 3])
        codes = "(?:<seg[0-9]{3}>){16}" if MASKS[row % 3] else ""
        assert all(re.fullmatch(f"(?:<loc[0-9]{{4}}>){{4}}{codes} [^<>]+", p) for p in pieces)
        found += len(detections)
    return found


def test_closed_answers_are_whole_boxes_of_the_labels_asked_for(model: PaliGemma) -> None:
    result = closed(model, 9, 40, Temperature(50.0))
    assert boxes(result, 40) >= 8
    # Log-probabilities are those among all tokens; of a location also with its neighbours'.
    text = np.concatenate([np.tile(PROMPT, (9, 1)), result.tokens], axis=1)
    mask_ar = np.tile(np.arange(text.shape[1]) >= len(PROMPT), (9, 1)).astype(np.int32)
    logits = model.logits(noise(model, 9), text, mask_ar)[:, len(PROMPT) - 1 : -1]
    logprobs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    first, last = TOKENIZER.loc_ids[0], TOKENIZER.loc_ids[-1]
    for row, length in enumerate(result.lengths.tolist()):
        for step, token in enumerate(result.tokens[row, :length].tolist()):
            own, near = logprobs[row, step], [token]
            if first <= token <= last:
                near = list(range(max(first, token - NEARBY), min(last, token + NEARBY) + 1))
            assert result.logprobs[row, step] == pytest.approx(own[token], abs=1e-3)
            mass = np.log(np.exp(own[near]).sum())
            assert result.nearby[row, step] == pytest.approx(mass, abs=1e-3)


@pytest.mark.slow
def test_ten_thousand_closed_boxes_have_no_foreign_label(model: PaliGemma) -> None:
    samplers = (Greedy(), Temperature(1.0), Temperature(5.0), TopK(3, 2.0))
    total = seed = 0
    while total < 10_000:
        result = closed(model, 96, 64, samplers[seed % len(samplers)], seed)
        total += boxes(result, 64)
        seed += 1


def test_a_grammar_ends_each_answer_in_as_few_tokens_as_it_says() -> None:
    grammar, begins = closed_boxes(TOKENIZER, LABELS, MASKS, 22)
    locations = len(TOKENIZER.loc_ids)
    assert [grammar.needed[begin].min() for begin in begins] == [0, 0, 0]
    # A box of four locations, its label and the end; a mask has 16 codes besides.
    assert [int(grammar.needed[begin, 0]) for begin in begins] == [5, 5, 21]
    assert grammar.tokens.shape[1] == locations
    with pytest.raises(ValueError, match="it names no label"):
        closed_boxes(TOKENIZER, [[]], [False], 22)
    with pytest.raises(ValueError, match="max_new_tokens=21: an object takes up to 22 tokens with"):
        closed_boxes(TOKENIZER, LABELS, MASKS, 21)
