"""A hash of what an image looks like: 256 bits of its discrete cosine transform."""

import math

import numpy as np
from numpy.typing import NDArray

from paliflow.jobs.safety.protocol import VIEW
from paliflow.jobs.safety.quality import luminance

HASH_BYTES = 32
VERSION = "dct256-1"
"""Changes whenever the same image may get another hash."""
_SMALL = 64
"""Pixels of the sides of what is transformed."""
_BITS = 16
"""Rows and columns of coefficients that give a bit each; the first ones, which are the mean
brightness of rows and columns, do not."""
_LEAST_DEVIATION = 3.0
"""Grey levels. What varies less is noise, whose bits are drawn at random."""


def _cosines() -> NDArray[np.float64]:
    """The rows 1 to 16 of the orthonormal DCT-II of 64 values."""
    frequency = np.arange(1, _BITS + 1)[:, None]
    angle = math.pi / _SMALL * (np.arange(_SMALL) + 0.5)[None, :] * frequency
    cosines: NDArray[np.float64] = math.sqrt(2 / _SMALL) * np.cos(angle)
    return cosines


_COSINES = _cosines()


def image_hash(pixels: NDArray[np.uint8]) -> bytes | None:
    """Returns the hash of an image; None of one that is nearly flat, which has none.

    A bit says whether a coefficient is above the median of all. JPEG, half the size, a watermark or
    another brightness change few bits; a crop of some percent, a flip or a turn change most.

    Args:
        pixels: uint8 [256, 256, 3], RGB, squashed to a square.
    """
    block = VIEW // _SMALL
    grey = luminance(pixels).reshape(_SMALL, block, _SMALL, block).mean((1, 3), dtype=np.float64)
    if grey.std() < _LEAST_DEVIATION:
        return None
    coefficients = _COSINES @ grey @ _COSINES.T
    return np.packbits(coefficients > np.median(coefficients)).tobytes()


def as_words(hashes: list[bytes]) -> NDArray[np.uint64]:
    """Returns hashes of 32 bytes as uint64 [count, 4].

    Raises:
        ValueError: one of them has another length.
    """
    if any(len(each) != HASH_BYTES for each in hashes):
        raise ValueError(f"a hash has {HASH_BYTES} bytes")
    return np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 4)


def distances(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns the bits in which hashes differ: words [..., 4] against [..., 4], broadcast."""
    different: NDArray[np.int64] = np.bitwise_count(one ^ other).sum(-1, dtype=np.int64)
    return different
