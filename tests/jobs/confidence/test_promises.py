"""What calibration promises is kept on images that it has not seen: by stored scores, no model."""

from pathlib import Path

import numpy as np
import pytest

from paliflow.benchmarks.confidence import PRECISION, SPLITS, kept, load_scores

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
    splits = [kept(load_scores(SCORES)[name], seed) for seed in range(SPLITS)]
    assert sum(split.precision >= PRECISION for split in splits) >= 95
    ece = np.mean([split.ece for split in splits])
    by_chance = np.mean([split.by_chance for split in splits])
    assert ece < by_chance + 0.02  # that of the noise in a half of the images
    if name.startswith("sharp"):
        assert ece < 0.02
        assert np.mean([split.accepted for split in splits]) > 0.5
