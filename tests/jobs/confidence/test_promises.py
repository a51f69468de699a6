"""What calibration promises is kept on images that it has not seen: by stored scores, no model."""

from pathlib import Path

import numpy as np
import pytest

from paliflow.benchmarks.confidence import PRECISION, SPLITS, kept, load_scores
from paliflow.metrics.calibration import agreement

SCORES = Path(__file__).parents[2] / "data" / "confidence.npz"
NAMES = [
    f"{domain}: {prompt}"
    for domain in ("sharp", "blurred")
    for prompt in (
        "answer en how many digits are there?",
        "answer en what is the leftmost digit?",
        "detect digit",
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_precisions_are_kept_and_confidences_are_frequencies(name: str) -> None:
    scores = load_scores(SCORES)[name]
    splits = [kept(scores, seed) for seed in range(SPLITS)]
    assert sum(split.precision >= PRECISION for split in splits) >= 95
    assert np.mean([split.ece for split in splits]) < 0.02
    # Of sharp scenes' boxes the output's `score` was not kept.
    by_score, by_confidence = np.mean([split[-2:] for split in splits], axis=0)
    if scores.score.any():
        assert by_score > 0.9
        assert by_confidence > by_score - 1e-9
    elif name.startswith("blurred"):  # what the model is bad at, and surest of some wrong answers
        assert agreement(scores.raw, scores.right, resamples=2).ece.value > 0.2
        assert np.mean([split.accepted for split in splits]) > 0.2
    else:
        assert np.mean([split.accepted for split in splits]) > 0.5
