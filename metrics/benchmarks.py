"""Rules of single benchmarks: POPE's and ScienceQA's parsing, ANLS as its server computes it."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from paliflow.metrics.answers import edit_distance
from paliflow.metrics.captions import bleu_counts
from paliflow.metrics.limits import MAX_CHARACTERS

_SCIENCE_QA = re.compile(r"the answer is ([a-z])\.")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def pope_answer(text: str) -> str:
    """What POPE's own script takes a text for: `no` if its first sentence has one, else `yes`.

    Source: https://github.com/AoiDragon/POPE, evaluate.py.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def science_qa_answer(text: str) -> int | None:
    """The option that `The answer is B.` at a text's beginning names, from 0; None if none.

    Source: big_vision's evaluator, science_qa.py.
    """
    found = _SCIENCE_QA.match(text.lower())
    return _LETTERS.index(found[1]) if found else None


def anls_rrc(targets: Sequence[str], prediction: str) -> float:
    """ANLS as the Robust Reading Competition's server computes it, of the best target; 0 to 1.

    White space is collapsed and case ignored, the distance is divided by the longer text as it was
    before, and a similarity of exactly 0.5 counts. Source: https://rrc.cvc.uab.es, script of
    DocVQA's task 1.

    Raises ValueError if there are no targets.
    """
    if isinstance(targets, str) or not len(targets):
        raise ValueError(f"targets is {targets!r}: give a list with at least one right answer")

    def plain(text: str) -> str:
        return " ".join(text.strip().lower().split())[:MAX_CHARACTERS]

    def similarity(target: str) -> float:
        longer = max(len(target), len(prediction))
        return 1 - edit_distance(plain(target), plain(prediction)) / longer if longer else 1.0

    best = max(map(similarity, targets))
    return best if best >= 0.5 else 0.0


def character_error_rate(target: str, prediction: str) -> float:
    """Edits that turn the prediction into the target, over the target's characters.

    0 is the same text; more than 1 is possible. Of each text the first `MAX_CHARACTERS` count.
    Raises ValueError if the target is empty.
    """
    if not target:
        raise ValueError("target is empty: there is no rate of errors in no characters")
    target, prediction = target[:MAX_CHARACTERS], prediction[:MAX_CHARACTERS]
    return edit_distance(target, prediction) / len(target)


def right_characters(targets: Sequence[str], prediction: str) -> tuple[float, float]:
    """How many characters are right, and how many are wanted, of the target that fits best.

    Right are those wanted less the edits, see `character_error_rate`, and at least none. Of an
    empty target one is wanted, and right where the prediction is empty. Surrounding space never
    counts.
    """
    given = prediction.strip()
    of_each = []
    for target in (each.strip()[:MAX_CHARACTERS] for each in targets):
        wrong = character_error_rate(target, given) if target else float(bool(given))
        wanted = max(1, len(target))
        of_each.append((wanted * max(0.0, 1 - wrong), float(wanted)))
    return max(of_each, key=lambda part: part[0] / part[1])


def character_errors(targets: Sequence[str], prediction: str) -> tuple[float, float]:
    """How many edits turn an answer into the target that fits best, and how long that is.

    That is the one with the lowest `character_error_rate`; surrounding space never counts. Of each
    text the first `MAX_CHARACTERS` count.
    """
    given = prediction.strip()[:MAX_CHARACTERS]
    plain = [each.strip()[:MAX_CHARACTERS] for each in targets]
    of_each = [(float(edit_distance(target, given)), float(len(target))) for target in plain]
    return min(of_each, key=lambda part: part[0] / max(1.0, part[1]))


def all_right(right: Iterable[float], clusters: Sequence[str]) -> tuple[list[float], list[float]]:
    """Whether all rows of a cluster are right: numerators and denominators, one of each a row.

    A cluster counts once, at its first row. MMVP's pairs and NLVR2's sentences are scored so.
    """
    lowest: dict[str, float] = {}
    first: dict[str, int] = {}
    for row, (value, cluster) in enumerate(zip(right, clusters, strict=True)):
        lowest[cluster] = min(lowest.get(cluster, 1.0), value)
        first.setdefault(cluster, row)
    numerators, denominators = [0.0] * len(clusters), [0.0] * len(clusters)
    for cluster, row in first.items():
        numerators[row], denominators[row] = lowest[cluster], 1.0
    return numerators, denominators


def bleu_shares(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], order: int = 4
) -> NDArray[np.float64]:
    """What each caption of a set adds to its BLEU; the mean of them is BLEU.

    BLEU is no mean of captions. A share is the figure plus the caption's influence on it, the
    first-order change of BLEU with the caption's weight, so that a bootstrap over shares finds
    BLEU's uncertainty (Efron and Tibshirani 1993, chapter 22). One share by itself means nothing.
    """
    counts = bleu_counts(dict(enumerate(references)), dict(enumerate(hypotheses)))
    figure, sums = counts.bleu(order), counts.rows.sum(axis=0)
    rows = len(hypotheses)
    # Columns: correct n-grams of 1 to 4, guessed ones, length, length of the closest reference.
    correct, guessed, length, wanted = np.split(counts.rows, [4, 8, 9], axis=1)
    influence = np.zeros(rows)
    for n in range(order):
        for part, total, sign in ((correct, sums[n], 1), (guessed, sums[4 + n], -1)):
            if total:
                influence += sign * (part[:, n] / total - 1 / rows) / order
    if sums[9] > sums[8] > 0:
        influence += (length[:, 0] * sums[9] / sums[8] - wanted[:, 0]) / sums[8]
    return np.asarray(figure * (1 + rows * influence))
