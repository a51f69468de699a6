"""Likelihoods as Google's services write them: names, or in other encodings their numbers."""

from typing import Any

_NAMES = ("VERY_UNLIKELY", "UNLIKELY", "POSSIBLE", "LIKELY", "VERY_LIKELY")


def likelihood(value: Any) -> int:
    """Returns 1 to 5, from very unlikely to very likely; 0 of what is not known."""
    if value in _NAMES:
        return _NAMES.index(value) + 1
    known = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= len(_NAMES)
    return value if known else 0


def said(level: int) -> str:
    """E.g. `very likely`."""
    return _NAMES[level - 1].lower().replace("_", " ")
