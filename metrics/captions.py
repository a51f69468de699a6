"""CIDEr-D, BLEU and ROUGE-L of captions, equal to pycocoevalcap 1.2's.

Of each caption the first `MAX_CHARACTERS` count.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from paliflow.metrics.ptb import tokenize

_Id = TypeVar("_Id")
_Pair = tuple[list[str], str]  # tokenised references and hypothesis of one item
_ORDERS = (1, 2, 3, 4)
_SIGMA = 6.0  # of CIDEr-D's length penalty, in bigrams
_BETA = 1.2  # weight of recall in ROUGE-L


def cider(references: Mapping[_Id, Sequence[str]], hypotheses: Mapping[_Id, str]) -> float:
    """Mean CIDEr-D over all items, 0 to 10 (papers print it times 100).

    Takes raw captions by item id and tokenises them. Document frequencies come from the
    references, so the score depends on the whole set, and of a single item it is 0.

    Source: Vedantam et al. 2015, https://arxiv.org/abs/1411.5726.
    Raises ValueError if there are no items, their ids differ, or one has no references.
    """
    scores = cider_per_item(references, hypotheses)
    return sum(scores.values()) / len(scores)


def cider_per_item(
    references: Mapping[_Id, Sequence[str]], hypotheses: Mapping[_Id, str]
) -> dict[_Id, float]:
    """The CIDEr-D score of each item, in the order of `references`; see `cider`."""
    pairs = _tokenized(references, hypotheses)
    document_frequency = Counter(
        ngram
        for texts, _ in pairs.values()
        for ngram in {ngram for text in texts for n in _ORDERS for ngram in _ngrams(text, n)}
    )

    log_items = math.log(len(pairs))
    # Every n-gram that a reference has, by how rare it is; what none has is as rare as can be.
    rarity = {ngram: log_items - math.log(count) for ngram, count in document_frequency.items()}

    def vectors(text: str) -> list[tuple[dict[tuple[str, ...], float], float]]:
        """Of each order the weights of the n-grams, and their norm."""
        found = []
        for n in _ORDERS:
            counts = _ngrams(text, n)
            weights = {
                ngram: count * rarity.get(ngram, log_items) for ngram, count in counts.items()
            }
            found.append((weights, math.hypot(*weights.values())))
        return found

    def score(texts: list[str], hypothesis: str) -> float:
        given, length = vectors(hypothesis), _bigrams(hypothesis)
        total = 0.0
        for text in texts:
            wanted = vectors(text)
            cosines = sum(map(_clipped_cosine, given, wanted)) / len(_ORDERS)
            total += cosines * math.exp(-((length - _bigrams(text)) ** 2) / (2 * _SIGMA**2))
        return 10 * total / len(texts)

    return {key: score(texts, hypothesis) for key, (texts, hypothesis) in pairs.items()}


def bleu(references: Mapping[_Id, Sequence[str]], hypotheses: Mapping[_Id, str]) -> list[float]:
    """BLEU-1 to BLEU-4 of the whole set, each 0 to 1, brevity against the closest reference.

    Takes raw captions by item id and tokenises them.

    Source: Papineni et al. 2002, https://aclanthology.org/P02-1040.
    Raises ValueError if there are no items, their ids differ, or one has no references.
    """
    counts = bleu_counts(references, hypotheses)
    return [counts.bleu(n) for n in _ORDERS]


class BleuCounts(NamedTuple):
    """What BLEU of a set is computed from."""

    rows: NDArray[np.float64]
    """[N, 10] of each caption: n-grams that are right, for n of 1 to 4; n-grams; words; words of
    the reference whose length is closest."""

    def bleu(self, order: int) -> float:
        """BLEU of n-grams up to an order, of all captions together."""
        sums = self.rows.sum(axis=0)
        # The reference implementation's guards against division by zero, kept for its numbers.
        small, tiny = 1e-9, 1e-15
        shortfall = (sums[9] + small) / (sums[8] + tiny)
        precisions = (sums[:order] + tiny) / (sums[4 : 4 + order] + small)
        return math.exp(min(0.0, 1 - shortfall)) * math.pow(math.prod(precisions), 1 / order)


def bleu_counts(
    references: Mapping[_Id, Sequence[str]], hypotheses: Mapping[_Id, str]
) -> BleuCounts:
    """The counts of each caption, in the order of `references`; see `bleu`."""
    rows = []
    for texts, hypothesis in _tokenized(references, hypotheses).values():
        words = len(hypothesis.split())
        closest = min((len(text.split()) for text in texts), key=lambda n: (abs(n - words), n))
        correct, guessed = [], []
        for n in _ORDERS:
            candidates = _ngrams(hypothesis, n)
            most = Counter[tuple[str, ...]]()
            for text in texts:
                most |= _ngrams(text, n)
            correct.append((candidates & most).total())
            guessed.append(candidates.total())
        rows.append([*correct, *guessed, words, closest])
    return BleuCounts(np.array(rows, np.float64))


def rouge_l(references: Mapping[_Id, Sequence[str]], hypotheses: Mapping[_Id, str]) -> float:
    """Mean ROUGE-L over all items, 0 to 1: best precision and best recall over the references.

    Takes raw captions by item id and tokenises them.

    Source: Lin 2004, https://aclanthology.org/W04-1013.
    Raises ValueError if there are no items, their ids differ, or one has no references.
    """
    scores = rouge_l_per_item(references, hypotheses)
    return sum(scores.values()) / len(scores)


def rouge_l_per_item(
    references: Mapping[_Id, Sequence[str]], hypotheses: Mapping[_Id, str]
) -> dict[_Id, float]:
    """The ROUGE-L of each item, in the order of `references`; see `rouge_l`."""
    pairs = _tokenized(references, hypotheses)
    return {key: _rouge_l(texts, hypothesis) for key, (texts, hypothesis) in pairs.items()}


def _rouge_l(texts: list[str], hypothesis: str) -> float:
    words = hypothesis.split(" ")
    common = [(_common_subsequence(words, ref), len(ref)) for ref in (t.split(" ") for t in texts)]
    precision = max(length for length, _ in common) / len(words)
    recall = max(length / reference_length for length, reference_length in common)
    if not precision:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, a row of its table in the bits of an integer.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited.
    """
    matches: dict[str, int] = {}
    for column, word in enumerate(b):
        matches[word] = matches.get(word, 0) | 1 << column
    full = same = (1 << len(b)) - 1  # a 0 is where the length rises
    for word in a:
        match = same & matches.get(word, 0)
        same = (same + match | same - match) & full
    return len(b) - same.bit_count()


def _ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _bigrams(text: str) -> int:
    return max(0, len(text.split()) - 1)


def _clipped_cosine(
    hypothesis: tuple[dict[tuple[str, ...], float], float],
    reference: tuple[dict[tuple[str, ...], float], float],
) -> float:
    """Cosine of two n-gram vectors, no component of the hypothesis above the reference's."""
    (given, given_norm), (wanted, wanted_norm) = hypothesis, reference
    product = 0.0
    for ngram, weight in given.items():
        other = wanted.get(ngram)
        if other is not None:
            product += min(weight, other) * other
    return product / (given_norm * wanted_norm) if product else 0.0


def _tokenized(
    references: Mapping[_Id, Sequence[str]], hypotheses: Mapping[_Id, str]
) -> dict[_Id, _Pair]:
    if not references:
        raise ValueError("references is empty: give at least one item to score")
    if differing := references.keys() ^ hypotheses.keys():
        raise ValueError(
            f"references and hypotheses must have the same ids; {len(differing)} are in only one "
            f"of them: {', '.join(sorted(map(repr, differing))[:5])}"
        )
    for key, texts in references.items():
        if isinstance(texts, str) or not texts:
            raise ValueError(
                f"references[{key!r}] is {texts!r}: give a list with at least one caption"
            )
    return {
        key: ([tokenize(text) for text in texts], tokenize(hypotheses[key]))
        for key, texts in references.items()
    }
