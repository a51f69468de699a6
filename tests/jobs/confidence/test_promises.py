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
    before = agreement(scores.raw, scores.right, resamples=2).ece.value
    after = np.mean([split.ece for split in splits])
    if name.startswith("sharp"):
        assert after < 0.02
        assert np.mean([split.accepted for split in splits]) > 0.5
    else:  # what the model has never seen, and answers by guessing
        assert after < before / 2
