"""What is wrong with a video, or with a part of it."""

from fractions import Fraction
from typing import NamedTuple


class VideoError(ValueError):
    """A file that is no video that can be read; the message names no file."""


class FrameGap(NamedTuple):
    """Where frames are missing."""

    after: Fraction
    """Seconds of the last good frame since the first; -1 where there is none."""
    until: Fraction | None
    """Seconds of the next good frame; None where the file has no more."""
    reason: str
    mended: bool = False
    """Whether no frame is missing: the clock starts again here, and times were made to run on."""

    def shifted(self, start: Fraction) -> "FrameGap":
        """In the container's presentation times, where the first frame is shown at `start`."""
        after = self.after if self.after < 0 else self.after + start
        return self._replace(after=after, until=None if self.until is None else self.until + start)
