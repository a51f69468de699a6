"""What a filter is: it scores batches of images or texts, and says what it could not score."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from paliflow.jobs.media.pixels import VIEW_PIXELS

VIEW = VIEW_PIXELS
"""Pixels of the sides of what filters see of an image."""


class View(NamedTuple):
    """An image as filters see it."""

    pixels: NDArray[np.uint8]
    """[VIEW, VIEW, 3], RGB, squashed to a square."""
    width: int
    height: int
    """Pixels of the image itself, upright."""


class Span(NamedTuple):
    """Where in a text something was found."""

    start: int
    end: int
    """In characters, the end not included."""


class Score(NamedTuple):
    """What a filter says of one image or text under one label."""

    label: str
    score: float | None
    """In the filter's unit, e.g. a probability; None if it could not be scored, never 0 for that.
    """
    flagged: bool = False
    """Whether the filter's settings call it unwanted."""
    reason: str | None = None
    """Why it is flagged, or why it has no score; it never repeats what was found."""
    spans: tuple[Span, ...] = ()
    """Of a text, where it was found."""
    rewritten: str | None = None
    """The text as it may be kept, where the filter itself has removed what it found."""


class ImageFilter(Protocol):
    """Scores images."""

    name: str
    version: str
    """Changes whenever the same image may get another score."""

    def score(self, images: Sequence[View]) -> list[list[Score]]:
        """Returns the scores of each image, one or more."""


class TextFilter(Protocol):
    """Scores texts."""

    name: str
    version: str
    """Changes whenever the same text may get another score."""

    def score(self, texts: Sequence[str]) -> list[list[Score]]:
        """Returns the scores of each text, one or more."""
