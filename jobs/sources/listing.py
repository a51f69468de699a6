"""Which files of a folder, a glob or a tar are inputs; those passed over are counted by suffix."""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from paliflow import storage
from paliflow.model.images import HEAD_BYTES, has_image_magic

HIDDEN = "hidden"
"""What a system or a program left there, whatever its suffix."""
_OTHERS = "others"
_SYSTEMS = ("__macosx", "thumbs.db", "desktop.ini")
_SUFFIX = re.compile(r"\.[a-z0-9_+-]{1,10}")
_KINDS = 50
"""So many suffixes are told apart: data may have a new one for each file."""
_READERS = 16
_BATCH = 256


class Choice(NamedTuple):
    """What of many files is an input."""

    suffixes: tuple[str, ...]
    sniff: bool
    """Whether an image is one by its first bytes, too."""
    passed_over: Counter[str]
    """Counts the others by suffix."""

    def takes(self, name: str, head: Callable[[], bytes]) -> bool:
        """Whether a file is an input; counts it if not.

        Args:
            name: its path below what is listed.
            head: reads its first bytes.
        """
        return self._counted(self._verdict(name, head))

    def files(self, files: Iterable[storage.Entry], folder: str) -> Iterator[storage.Entry]:
        """The files below a folder that are inputs, in their order."""
        start = len(folder.rstrip("/")) + 1

        def verdict(file: storage.Entry) -> str | None:
            return self._verdict(
                file.uri[start:], lambda: storage.read_bytes(file.uri, 0, HEAD_BYTES)
            )

        remaining = iter(files)
        with ThreadPoolExecutor(_READERS) as pool:
            look = pool.map if self.sniff else map
            while batch := list(islice(remaining, _BATCH)):
                for file, passed in zip(batch, look(verdict, batch), strict=True):
                    if self._counted(passed):
                        yield file

    def _verdict(self, name: str, head: Callable[[], bytes]) -> str | None:
        """None for an input, and for others what they are counted as."""
        if is_hidden(name):
            return HIDDEN
        suffix = posixpath.splitext(name)[1].lower()
        if suffix in self.suffixes:
            return None
        try:
            if self.sniff and has_image_magic(head()):
                return None
        except OSError:
            return None  # its row says that it cannot be read
        return suffix if _SUFFIX.fullmatch(suffix) else _OTHERS if suffix else "no suffix"

    def _counted(self, passed: str | None) -> bool:
        if passed is None:
            return True
        known = passed in self.passed_over or len(self.passed_over) < _KINDS
        self.passed_over[passed if known else _OTHERS] += 1
        return False


def matched(pattern: str, passed_over: Counter[str]) -> Iterator[storage.Entry]:
    """The files that a glob matches, but hidden ones where it does not name such."""
    root = posixpath.dirname(re.split(r"[*?\[{]", pattern, maxsplit=1)[0])
    names_hidden = is_hidden(pattern[len(root) :])
    for file in storage.match(pattern):
        if not names_hidden and is_hidden(file.uri[len(root) :]):
            passed_over[HIDDEN] += 1
        else:
            yield file


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on the way to it, is none of the user's: `.DS_Store`,
    `__MACOSX/`, `._photo.jpg`, `Thumbs.db`.
    """
    return any(
        part.lower() in _SYSTEMS or (part.startswith(".") and part not in (".", ".."))
        for part in name.split("/")
    )
