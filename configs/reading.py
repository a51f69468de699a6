"""`ReadingCosts`: what reading images takes of a host's cores, as `reading.yaml` lists it."""

from functools import cache
from itertools import pairwise
from math import log
from pathlib import Path

import yaml
from pydantic import PositiveFloat, PositiveInt

from paliflow.configs.base import Spec
from paliflow.configs.run import Decode


class ReadingCosts(Spec):
    """`reading.yaml`."""

    measured: str
    """On which CPU, and when."""
    command: str
    """What printed the figures."""
    jpeg: dict[PositiveInt, dict[Decode, dict[PositiveFloat, PositiveFloat]]]
    """Milliseconds of a core for a JPEG, by the model's side, the way and the file's megapixels."""

    def milliseconds(self, way: Decode, side: int, megapixels: float) -> float:
        """Returns what a JPEG takes of a core, of the listed side that is nearest.

        Between two sizes it is interpolated, below the smallest what that one takes, and above the
        largest in proportion.
        """
        nearest = min(self.jpeg, key=lambda listed: abs(log(listed / side)))
        points = sorted(self.jpeg[nearest][way].items())
        largest, most = points[-1]
        if megapixels >= largest:
            return most * megapixels / largest
        for (low, least), (high, more) in pairwise(points):
            if low <= megapixels <= high:
                return least + (more - least) * (megapixels - low) / (high - low)
        return points[0][1]


@cache
def reading_costs() -> ReadingCosts:
    """What was measured."""
    text = Path(__file__).with_name("reading.yaml").read_text()
    return ReadingCosts.parse(yaml.safe_load(text))
