"""What filters of texts by a service share: one request a text, several at once, each text once."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from paliflow.jobs.safety.cloud.client import UnscoredError
from paliflow.jobs.safety.protocol import Score

_AT_ONCE = 8
_KNOWN = 100_000
_CODES = re.compile(r"<(?:loc\d{4}|seg\d{3})>")
_SURROGATES = re.compile("[\ud800-\udfff]")


def without_codes(text: str) -> str:
    """The text with location and mask tokens blanked out, and with what is no Unicode replaced; all
    else keeps its place."""
    return _CODES.sub(lambda code: " " * len(code[0]), _SURROGATES.sub("\ufffd", text))


def unscored(labels: Iterable[str], reason: str) -> list[Score]:
    """The scores of what could not be scored."""
    return [Score(label, None, reason=reason) for label in labels]


def probability(value: Any) -> float | None:
    """A score of 0 to 1, or None of what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def judged(label: str, score: float | None, threshold: float) -> Score:
    """A label's score, flagged from a threshold on."""
    if score is None:
        return Score(label, None, reason="the answer has no score of it")
    flagged = score >= threshold
    return Score(label, score, flagged, f"{score:.2f} of 1" if flagged else None)


class TextScores:
    """Scores texts by a function of one; what was scored is remembered, since captions repeat."""

    def __init__(
        self, score: Callable[[str], list[Score]], labels: Sequence[str], longest: int
    ) -> None:
        """
        Args:
            score: of a text that is neither blank nor too long; raises UnscoredError.
            labels: of what has no score.
            longest: bytes of UTF-8.
        """
        self._score, self._labels, self._longest = score, labels, longest
        self._known: dict[bytes, list[Score]] = {}

    def of(self, texts: Sequence[str]) -> list[list[Score]]:
        """Returns the scores of each text."""
        plain = [without_codes(text).strip() for text in texts]
        new = {text for text in plain if _key(text) not in self._known}
        fresh: dict[str, list[Score]] = {}
        if new:
            with ThreadPoolExecutor(min(_AT_ONCE, len(new))) as pool:
                fresh = dict(zip(new, pool.map(self._one, new), strict=True))
        found = [fresh[text] if text in fresh else self._known[_key(text)] for text in plain]
        if len(self._known) > _KNOWN:
            self._known.clear()
        for text, scores in fresh.items():
            if all(score.score is not None for score in scores):
                self._known[_key(text)] = scores
        return found

    def _one(self, text: str) -> list[Score]:
        if not text:
            return unscored(self._labels, "blank")
        if len(text.encode()) > self._longest:
            return unscored(self._labels, f"longer than {self._longest:,} bytes")
        try:
            return self._score(text)
        except UnscoredError as error:
            return unscored(self._labels, str(error))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
