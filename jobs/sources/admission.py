"""Admission: which rows of a manifest lead out of its roots, and when they are too many to run."""

import json
import posixpath
from collections import defaultdict
from collections.abc import Collection

from paliflow import storage
from paliflow.configs.base import SpecError, redacted

_SAMPLE = 100
"""As many of the first inputs are looked up, their links resolved; of later ones, if their names
lie below the roots, whoever reads them finds out where links lead."""
_SUGGESTED = 10


def roots_of(folder: str, allowed_roots: Collection[str], *more: str) -> tuple[str, ...]:
    """Where the files may lie that a file of names in a folder leads to.

    Args:
        folder: of the file.
        allowed_roots: the spec's; local ones do not count where the folder is remote.
        more: folders that the spec names for this file.
    """
    remote = "://" in folder
    allowed = (root for root in allowed_roots if "://" in root or not remote)
    return (folder, *more, *allowed)


class Admission:
    """Counts what lies outside of the roots, and ends planning where that is much.

    Args:
        max_error_fraction: more than this is too much, and so is everything.
    """

    def __init__(self, max_error_fraction: float) -> None:
        self._limit = max_error_fraction
        self._seen = self._outside = 0
        self._example = ""
        self._named_by: dict[str, str] = {}

    def admits(self, uri: str, roots: Collection[str] | None) -> bool:
        """Looks at one input.

        Raises:
            SpecError: of the first hundred, or of all so far, too many lie outside.
        """
        if roots is None or not uri:
            return True
        self._seen += 1
        try:
            if self._seen <= _SAMPLE or not any(storage.lies_below(uri, root) for root in roots):
                storage.within(uri, roots)
        except storage.OutsideError as error:
            self._outside += 1
            if self._outside <= _SAMPLE:
                self._example = self._example or uri
                self._named_by[posixpath.dirname(error.filename)] = next(iter(roots))
            admitted = False
        except (OSError, ValueError):
            admitted = True  # whoever reads it says why
        else:
            admitted = True
        if self._seen == _SAMPLE or (self._seen > _SAMPLE and not admitted):
            self.judge()
        return admitted

    def judge(self) -> None:
        """
        Raises:
            SpecError: with the line of `allowed_roots` that would let them in.
        """
        if not self._outside or (
            self._outside < self._seen and self._outside <= self._limit * self._seen
        ):
            return
        folder = next(iter(self._named_by.values()))
        said = (
            f"{self._outside} of {self._seen} inputs lie outside of {redacted(folder)!r}, e.g. "
            f"{redacted(self._example)[:200]!r}"
        )
        if lines := _suggested(self._named_by):
            said += f". If they shall be read, add: allowed_roots={json.dumps(lines)}"
        else:
            said += ". No root allows that: a remote file names no local one, and no URI has `..`"
        raise SpecError(said)


def _suggested(named_by: dict[str, str]) -> list[str]:
    """The fewest roots, one a bucket or top folder, that hold these folders."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for folder, root in named_by.items():
        scheme, slashes, path = folder.rpartition("://")
        nowhere = "://" in root and not slashes
        if not nowhere and storage.lies_below(folder, scheme + slashes or "/"):
            groups[scheme + slashes, path.lstrip("/").split("/")[0]].append(path)
    common = [prefix + posixpath.commonpath(paths) for (prefix, _), paths in groups.items()]
    return sorted(common)[:_SUGGESTED]
