"""Toxicity of English texts by a small LSTM, in NumPy: six scores of 0 to 1."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paliflow.configs.safety import ToxicityFilter
from paliflow.jobs.safety.protocol import Score

LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
_WEIGHTS = Path(__file__).parent / "weights" / "toxicity.npz"
_SEPARATORS = re.compile(r"""[\s!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~]+""")
_CODES = re.compile(r"<(?:loc\d{4}|seg\d{3})>")
_WORDS = 100
"""That the network sees at once."""
_LEAST_KNOWN = 0.5
"""A text of which fewer of its words are known is of another language."""
LONGEST = 2**15
"""Characters of a text beyond which it is not scored."""
Weights = dict[str, NDArray[np.float32]]


class Toxicity:
    """A `TextFilter`. The network learnt from comments in Wikipedia's discussions, and takes some
    neutral words about people for toxic: see docs/responsible_use.md."""

    name = "toxicity"
    version = "toxic-comment-classifier-0.3.0"

    def __init__(self, settings: ToxicityFilter) -> None:
        self._threshold = settings.threshold
        self._weights, self._known = _weights()

    def score(self, texts: Sequence[str]) -> list[list[Score]]:
        """See `TextFilter`."""
        read = [self._read(text) for text in texts]
        pieces = [piece for each in read for piece in each.pieces]
        scored = iter(network(self._weights, pieces) if pieces else ())
        found = []
        for each in read:
            if each.unscored:
                found.append([Score("toxicity", None, reason=each.unscored)])
                continue
            own = [next(scored) for _ in each.pieces]
            highest = np.max(own, 0).tolist() if own else [0.0] * len(LABELS)
            found.append([self._told(*pair) for pair in zip(LABELS, highest, strict=True)])
        return found

    def _told(self, label: str, score: float) -> Score:
        flagged = score >= self._threshold
        return Score(label, score, flagged, f"{score:.2f} of 1" if flagged else None)

    def _read(self, text: str) -> "_Read":
        if len(text) > LONGEST:
            return _Read([], f"longer than {LONGEST} characters")
        words = [word for word in _SEPARATORS.split(_CODES.sub(" ", text.lower())) if word]
        known = [self._known[word] for word in words if word in self._known]
        if len(known) < _LEAST_KNOWN * len(words):
            return _Read([], "most of its words are none of the English words that are known")
        # Of a long text every part is looked at.
        return _Read([known[at : at + _WORDS] for at in range(0, len(known), _WORDS)], None)


class _Read(NamedTuple):
    """A text as numbers of words, in pieces; or why it cannot be scored."""

    pieces: list[list[int]]
    unscored: str | None


@cache
def _weights() -> tuple[Weights, dict[str, int]]:
    """The network's arrays, and the number of each word that it knows."""
    with np.load(_WEIGHTS, allow_pickle=False) as file:
        words = file["words"].tobytes().decode().split("\n")
        weights = {name: file[name].astype(np.float32) for name in file.files if name != "words"}
    return weights, {word: number for number, word in enumerate(words, 1)}


def network(weights: Weights, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Returns the six scores of each text, float32 [texts, 6]; padded on the left, as it learnt."""
    numbers = np.zeros((len(texts), _WORDS), np.int64)
    for row, words in zip(numbers, texts, strict=True):
        row[_WORDS - len(words) :] = words
    seen = weights["embedding"][numbers]
    forward = _lstm(weights, "forward", seen)
    backward = _lstm(weights, "backward", seen[:, ::-1])
    both = np.concatenate([forward, backward], 1)
    hidden = np.maximum(both @ weights["hidden"] + weights["hidden_bias"], 0)
    scores: NDArray[np.float32] = _sigmoid(hidden @ weights["output"] + weights["output_bias"])
    return scores


def _lstm(weights: Weights, way: str, seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """The maximum of each unit over time, [texts, units]; gates in Keras' order i f c o."""
    inputs = seen @ weights[f"{way}_input"] + weights[f"{way}_bias"]
    recurrent = weights[f"{way}_recurrent"]
    units = len(recurrent)
    hidden = cell = np.zeros((len(seen), units), np.float32)
    highest = np.full((len(seen), units), -np.inf, np.float32)
    for step in range(inputs.shape[1]):
        gates = inputs[:, step] + hidden @ recurrent
        open_, forget, new, shown = np.split(gates, 4, 1)
        cell = _sigmoid(forget) * cell + _sigmoid(open_) * np.tanh(new)
        hidden = _sigmoid(shown) * np.tanh(cell)
        highest = np.maximum(highest, hidden)
    return highest


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = 0.5 * (1 + np.tanh(0.5 * values))  # never overflows
    return result
