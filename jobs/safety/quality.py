"""Image quality: size, shape, blur and blankness, by arithmetic on the pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paliflow.configs.safety import QualityFilter
from paliflow.jobs.safety.protocol import Score, View

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""


class Quality:
    """An `ImageFilter`. Its scores: `small` is the shorter side in pixels, `long` the ratio of the
    sides, `blurred` the variance of the Laplacian, `blank` the entropy in bits."""

    name = "quality"
    version = "1"

    def __init__(self, settings: QualityFilter) -> None:
        self._settings = settings

    def score(self, images: Sequence[View]) -> list[list[Score]]:
        """See `ImageFilter`."""
        return [self._score(image) for image in images]

    def _score(self, image: View) -> list[Score]:
        limits = self._settings
        grey = luminance(image.pixels)
        short, long = sorted((image.width, image.height))
        aspect, sharp, bits = long / max(1, short), sharpness(grey), entropy(grey)
        return [
            _limited("small", short, short < limits.min_side, f"min_side={limits.min_side}"),
            _limited("long", aspect, aspect > limits.max_aspect, f"max_aspect={limits.max_aspect}"),
            _limited(
                *("blurred", sharp, sharp < limits.min_sharpness),
                f"min_sharpness={limits.min_sharpness:g}",
            ),
            _limited(
                *("blank", bits, bits < limits.min_entropy), f"min_entropy={limits.min_entropy:g}"
            ),
        ]


def _limited(label: str, value: float, flagged: bool, limit: str) -> Score:
    return Score(label, value, flagged, f"{value:.3g} is beyond {limit}" if flagged else None)


def luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns RGB [height, width, 3] as grey levels of 0 to 255, [height, width]."""
    grey: NDArray[np.float32] = pixels.astype(np.float32) @ _LUMA
    return grey


def sharpness(grey: NDArray[np.float32]) -> float:
    """Returns the variance of the Laplacian (each pixel against its four neighbours)."""
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.var(around - 4 * inner))


def entropy(grey: NDArray[np.float32]) -> float:
    """Returns the entropy of the histogram of whole grey levels, in bits."""
    counts = np.bincount(grey.astype(np.uint8).ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # without a negative zero
