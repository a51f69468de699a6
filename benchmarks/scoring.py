"""How long scoring takes: a million VQA answers, and CIDEr of 40,000 captions with 5 references.

    .venv/bin/python -m paliflow.benchmarks.scoring

Each is measured beside the rule as it is written down, in plain Python: the official leave-one-out
of VQAv2, and pycocoevalcap where that is installed. The figures have to be equal.
"""

import random
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from typing import Any, TypeVar

from paliflow.configs.benchmark import benchmark
from paliflow.jobs.evaluate.figures import benchmark_scores, cluster_of
from paliflow.metrics import bootstrap_interval, cider, tokenize, vqa_normalize

ANSWERS, QUESTIONS_AN_IMAGE, CAPTIONS, REFERENCES = 1_000_000, 5, 40_000, 5
SAMPLE = 20_000
"""Answers that the plain rule is measured on."""
WORDS = 8_000
T = TypeVar("T")


def main() -> None:
    """Prints what was measured; exits with 1 where two figures differ."""
    rng = random.Random(0)
    vqa(rng)
    captions(rng)


def vqa(rng: random.Random) -> None:
    """A million answers by VQAv2's rule, with the interval over images."""
    usual = ["yes", "no", "2", "two", "a red car", "it's", "don't know", "1,000", "none"]
    known = [*usual, *(f"the answer {number}." for number in range(WORDS * 10))]
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(known))))
    rows = [_row(number, rng, known, weights) for number in range(ANSWERS)]
    before = _peak_gib()
    score, seconds = _timed(lambda: benchmark_scores(benchmark("vqav2"), rows)["accuracy"])
    interval, more = _timed(lambda: bootstrap_interval(*score, [cluster_of(row) for row in rows]))
    print(
        f"{ANSWERS:,} answers: {seconds:.1f} s of CPU, and {more:.1f} s for the interval "
        f"{interval[0]:.4f} to {interval[1]:.4f}; {_peak_gib():.2f} GiB at most, {before:.2f} of "
        "them the rows"
    )
    right, plain = _timed(lambda: [_leave_one_out(row) for row in rows[:SAMPLE]])
    print(f"the rule as it is written, of {SAMPLE:,}: {plain:.1f} s")
    if max(abs(a - b) for a, b in zip(right, score.numerators[:SAMPLE], strict=True)) > 1e-9:
        raise SystemExit("the two differ")


def captions(rng: random.Random) -> None:
    """CIDEr of a set as large as COCO's val2014, with sentences of a Zipfian vocabulary."""
    weights = [1 / (rank + 1) for rank in range(WORDS)]
    words = [f"w{number}" for number in range(WORDS)]

    def sentence() -> str:
        return " ".join(rng.choices(words, weights, k=rng.randint(7, 14))) + "."

    right = {n: [sentence() for _ in range(REFERENCES)] for n in range(CAPTIONS)}
    # As good captions do, each shares most of a reference.
    said = {n: own[0][: rng.randint(10, 60)] for n, own in right.items()}
    ours, seconds = _timed(lambda: cider(right, said))
    print(f"CIDEr of {CAPTIONS:,} x {REFERENCES}: {seconds:.1f} s of CPU, {_peak_gib():.2f} GiB")
    with suppress(ImportError):
        from pycocoevalcap.cider.cider import Cider  # type: ignore[import-not-found]

        tokens = {n: [tokenize(each) for each in own] for n, own in right.items()}
        given = {n: [tokenize(each)] for n, each in said.items()}
        (theirs, _), plain = _timed(lambda: Cider().compute_score(tokens, given))
        print(f"pycocoevalcap, of tokens: {plain:.1f} s")
        if abs(ours - theirs) > 1e-6:
            raise SystemExit(f"the two differ: {ours} and {theirs}")


def _row(number: int, rng: random.Random, known: list[str], weights: list[float]) -> dict[str, Any]:
    right, *others = rng.choices(known, cum_weights=weights, k=5)
    people = [right if rng.random() < 0.7 else rng.choice(others) for _ in range(10)]
    return {
        "prefix": "answer en what?",
        "references": people,
        "text": right if rng.random() < 0.6 else others[0],
        "image": str(number // QUESTIONS_AN_IMAGE),
        "image_sha256": None,
        "details": {"groups": {"answer_type": ["other"]}},
    }


def _leave_one_out(row: dict[str, Any]) -> float:
    text, people = row["text"], row["references"]
    if len(set(people)) > 1:
        text, people = vqa_normalize(text), [vqa_normalize(each) for each in people]
    others = [people[:n] + people[n + 1 :] for n in range(len(people))]
    return float(sum(min(1.0, own.count(text) / 3) for own in others) / len(others))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


def _peak_gib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main()
