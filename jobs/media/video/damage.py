"""What is wrong with a video, or with a part of it."""

from fractions import Fraction
from typing import NamedTuple


class VideoError(ValueError):
    """A file that is no video that can be read; the message names no file."""


class FrameGap(NamedTuple):
    """Where frames are missing, or where the clock starts again."""

    after: Fraction
    """Seconds of the last good frame since the first; -1 where there is none."""
    until: Fraction | None
    """Seconds of the next good frame; None where the file has no more."""
    reason: str
    mended: bool = False
    """Whether no frame is missing: the clock starts again here, and times were made to run on."""

    estimated: bool = False
    """Whether nobody can know how many frames are missing, so that indices after it are guesses."""

    def shifted(self, start: Fraction) -> "FrameGap":
        """In the container's presentation times, where the first frame is shown at `start`."""
        after = self.after if self.after < 0 else self.after + start
        return self._replace(after=after, until=None if self.until is None else self.until + start)

    @property
    def note(self) -> str:
        """What is said of the next frame that is sampled; empty where there is nothing to say."""
        if self.until is None:
            return ""
        time = float(self.until)
        said = [f"times run on from {time:.3f} s, where {self.reason}"] if self.mended else []
        if self.estimated:
            said.append(f"frame_index is estimated from {time:.3f} s on")
        return "; ".join(said)
