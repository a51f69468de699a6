"""Films of moving handwritten digits, and what is to be read in them when."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.random import Generator
from PIL import Image

from paliflow.benchmarks.digits.scenes import GRID, draw_ink, draw_paper, scans

FPS = 25
SCALE = 4
"""Pixels a grid cell."""


class Shot(NamedTuple):
    """What stands in a film for a while."""

    first: int
    last: int
    """Its frames; the last is the first that is not part of it any more."""
    digits: str
    """From left to right, as `ocr` reads them."""


def shoot(rng: Generator, split: str, shots: int, frames: int) -> Iterator[tuple[Image.Image, str]]:
    """The frames of a film and what is to be read in each: shots of drifting digits, cut hard.

    Args:
        rng: decides everything.
        split: whose scans.
        shots: how many.
        frames: of each.
    """
    images, labels = scans(split)
    size = GRID * SCALE
    for _ in range(shots):
        paper = draw_paper(rng, size)
        count = int(rng.integers(1, 4))
        picks = rng.integers(len(labels), size=count)
        lane = GRID / count  # no digit ever stands above another
        actors = []
        for place, pick in enumerate(picks):
            stamp = draw_ink(rng, images[pick])
            height = int(rng.integers(18, 25))
            width = int(np.clip(round(stamp.width / stamp.height * height), 5, lane - 3))
            stamp = stamp.resize((width * SCALE, height * SCALE), Image.Resampling.BICUBIC)
            alpha = stamp.point([min(255, max(0, (v - 92) * 2)) for v in range(256)])
            left = place * lane + 1 + rng.random() * (lane - 2 - width)
            start, end = rng.uniform(1, GRID - height - 1, 2)
            actors.append((alpha, left, start, end))
        text = " ".join(str(labels[pick]) for pick in picks)
        for frame in range(frames):
            canvas, along = paper.copy(), frame / frames
            for alpha, left, start, end in actors:
                at = (round(left * SCALE), round((start + (end - start) * along) * SCALE))
                canvas.paste((30, 30, 40), at, alpha)
            yield canvas, text


def write_film(path: Path, rng: Generator, split: str, shots: int, frames: int) -> list[Shot]:
    """Writes a film as H.264 with B-frames; returns what is to be read in it."""
    told: list[Shot] = []
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "g": "50"})
        stream.width = stream.height = GRID * SCALE
        stream.pix_fmt = "yuv420p"
        for number, (image, text) in enumerate(shoot(rng, split, shots, frames)):
            if number % frames == 0:
                told.append(Shot(number, number + frames, text))
            picture = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return told
