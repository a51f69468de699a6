"""One labelled example, or the reason why a row is none."""

from typing import Any, NamedTuple

from paliflow.configs.prompts import misspelt_task, say_stripped, stripped
from paliflow.jobs.tables import resolve


class Example(NamedTuple):
    """Images, what is asked about them, and what is right to answer."""

    id: str
    """Unique within its source, and the same whenever that is read."""
    images: tuple[str, ...]
    """Absolute URIs."""
    prefix: str
    suffixes: tuple[str, ...]
    """One or more right answers."""


def make_example(name: str, images: Any, prefix: Any, suffixes: Any, folder: str) -> Example | str:
    """An example of what a row holds, or a reason that names no file: equal ones are counted.

    Args:
        name: becomes the `id`.
        images: a path or a list of paths.
        prefix: not blank.
        suffixes: an answer or a list of answers, of which blank ones are left out.
        folder: what relative paths are relative to.
    """
    paths, answers = _texts(images), _texts(suffixes)
    if paths is None:
        return "the image is neither a path nor a list of paths"
    if not paths or not all(paths):
        return "no image"
    if not isinstance(prefix, str | None):
        return "the prefix is not text"
    if not prefix or not (asked := stripped(prefix)):
        return "no prefix"
    if asked != prefix:
        say_stripped("prefixes of examples")
    if said := misspelt_task(asked):
        return f"prefix: {said}"
    if answers is None:
        return "the suffix is neither text nor a list of texts"
    right = tuple(answer for answer in answers if answer and not answer.isspace())
    if not right:
        return "no suffix"
    return Example(name, tuple(resolve(path, folder) for path in paths), _utf8(asked), right)


def _texts(value: Any) -> list[str] | None:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str | None) for each in values):
        return None
    return [_utf8(each or "") for each in values]


def _utf8(text: str) -> str:
    # Lone surrogates, which JSON can smuggle in, are not UTF-8.
    return text.encode(errors="backslashreplace").decode()
