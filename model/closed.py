"""Closed detection: which tokens may come next, so that answers are whole boxes of known labels."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paliflow.model.tokenizer import LOC_PIECES, Tokenizer

# Axes: X state, K token that a state allows.

_MASK_CODES = 16
_END = -1


class Grammar(NamedTuple):
    """An automaton over tokens, padded to the widest state.

    An answer is empty, or objects that are joined by a separator; an object is four locations, 16
    mask codes where there are masks, and a label.
    """

    tokens: NDArray[np.int32]  # [X, K]; those that each state allows
    following: NDArray[np.int32]  # [X, K]; the state after each
    needed: NDArray[np.int32]  # [X, K]; tokens that an answer needs at least after each, its end
    # token included; of pads more than any answer has
    above: NDArray[np.bool_]  # [X]; whether the token exceeds that of two steps before, so that a
    # box has an area


def closed_boxes(
    tokenizer: Tokenizer,
    labels: Sequence[Sequence[str]],
    masks: Sequence[bool],
    max_new_tokens: int,
) -> tuple[Grammar, list[int]]:
    """The grammar of several prompts' answers, and the state that each prompt's begin in.

    Args:
        tokenizer: the model's.
        labels: of each prompt, those that were asked for.
        masks: of each prompt, whether its objects have masks.
        max_new_tokens: of an answer.

    Raises:
        ValueError: a prompt has no labels, the tokenizer cannot write one, or there is no room for
            an object of one.
    """
    states: list[dict[int, int]] = []
    above: set[int] = set()

    def state() -> int:
        states.append({})
        return len(states) - 1

    begins = []
    locations = tokenizer.loc_ids
    for names, masked in zip(labels, masks, strict=True):
        begin, y_min, label = state(), state(), state()
        x_min, y_max, x_max = state(), state(), state()
        above |= {y_max, x_max}
        # The last bin can begin no box.
        for first in (begin, y_min):
            states[first] |= dict.fromkeys(locations[:-1], x_min)
        states[begin][tokenizer.eos_id] = _END
        states[x_min] |= dict.fromkeys(locations[:-1], y_max)
        states[y_max] |= dict.fromkeys(locations[1:], x_max)
        codes = [*(state() for _ in range(_MASK_CODES if masked else 0)), label]
        states[x_max] |= dict.fromkeys(locations[1:], codes[0])
        for code, following in pairwise(codes):
            states[code] |= dict.fromkeys(tokenizer.seg_ids, following)
        for tokens, last in _after_boxes(tokenizer, names, y_min):
            whole = 4 + len(codes) - 1 + len(tokens)
            if last == _END and whole > max_new_tokens:
                raise ValueError(
                    f"max_new_tokens={max_new_tokens}: an object takes up to {whole} tokens with "
                    f"the labels {', '.join(names)}"
                )
            place = label
            for token in tokens[:-1]:
                if token not in states[place]:
                    states[place][token] = state()
                place = states[place][token]
            states[place][tokens[-1]] = last
        begins.append(begin)
    return _laid_out(states, above), begins


def _after_boxes(
    tokenizer: Tokenizer, labels: Sequence[str], again: int
) -> list[tuple[list[int], int]]:
    """What may follow a box, as the model was taught it: a label and the end, or another box."""
    if not labels:
        raise ValueError("it names no label")
    found = []
    for label in dict.fromkeys(labels):
        tokens = tokenizer.encode(f"{LOC_PIECES[0]} {label}")[1:]
        joined = tokenizer.encode(f"{LOC_PIECES[0]} {label} ; {LOC_PIECES[0]}")[1:-1]
        if not tokens or tokenizer.unk_id in joined:
            raise ValueError(f"label {label!r}: the tokenizer cannot write it")
        found += [([*tokens, tokenizer.eos_id], _END), (joined, again)]
    return found


def _laid_out(states: Sequence[dict[int, int]], above: set[int]) -> Grammar:
    needed = _least(states)
    # A power of two, so that prompts of about as many labels share programs.
    shape = (1 << (len(states) - 1).bit_length(), max(map(len, states)))
    grammar = Grammar(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.full(shape, np.iinfo(np.int32).max // 2, np.int32),
        np.array([number in above for number in range(shape[0])]),
    )
    for number, allowed in enumerate(states):
        for place, (token, following) in enumerate(allowed.items()):
            grammar.tokens[number, place] = token
            grammar.following[number, place] = max(following, 0)
            grammar.needed[number, place] = 0 if following == _END else needed[following]
    return grammar


def _least(states: Sequence[dict[int, int]]) -> list[int]:
    """The fewest tokens that end an answer from each state."""
    far = len(states) + 1
    least = [far] * len(states)
    changed = True
    while changed:
        changed = False
        for number, allowed in enumerate(states):
            steps = (0 if after == _END else least[after] for after in set(allowed.values()))
            best = 1 + min(steps, default=far)
            if best < least[number]:
                least[number], changed = best, True
    return least
