"""One labelled example, or the reason why a row is none."""

import re
from typing import Any, Literal, NamedTuple

from paliflow.configs.prompts import misspelt_task, say_stripped, stripped, task_of
from paliflow.jobs.media.places import place_item
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.columns import CELL
from paliflow.jobs.sources.tables import resolve

_BYTES = re.compile(r"(.+)#bytes=([0-9]{1,18})-([0-9]{1,18})")
_MAY_FIND_NOTHING = ("detect", "segment")
"""Tasks to which nothing is an answer, whatever the source says of empty suffixes."""


class Example(NamedTuple):
    """Images, what is asked about them, and what is right to answer."""

    id: str
    """Unique within its source, and the same whenever that is read."""
    images: tuple[str, ...]
    """Absolute URIs, or from `self_contained_uri`."""
    prefix: str
    suffixes: tuple[str, ...]
    """One or more right answers; `""` where nothing is to be answered. None where only a server
    has them."""
    size: tuple[int, int] | None = None
    """Width and height of the picture that boxes in the suffixes are of; that which the model sees
    if not given."""
    details: str | None = None
    """JSON of what a benchmark's scorer needs besides: the groups of the example, its id for a
    server, what makes it dependent on others."""
    edit: str | None = None
    """As `Item.edit`, of each of its images."""


def self_contained_uri(item: Item) -> str:
    """Where an input is, for whoever has no plan: of a tar's member its bytes in the tar."""
    if item.archive is None or item.offset is None or item.size is None:
        return item.uri
    return f"{item.archive}#bytes={item.offset}-{item.offset + item.size - 1}"


def image_item(image: str, roots: tuple[str, ...] | None, edit: str | None = None) -> Item:
    """How to read an example's image; the inverse of `self_contained_uri` with roots anywhere.

    Nobody but Paliflow says where in a file an image is: a digest of any byte would tell it. What
    readers of benchmarks have found in their archives (`media.places`) no other source may name.
    """
    if item := place_item(image, roots, edit):
        return item
    if roots is None and (found := _BYTES.fullmatch(image)):
        first, last = int(found[2]), int(found[3])
        return Item(image, archive=found[1], offset=first, size=last - first + 1, edit=edit)
    return Item(image, roots=roots, edit=edit)


def make_example(
    name: str,
    images: Any,
    prefix: Any,
    suffixes: Any,
    folder: str,
    empty: Literal["keep", "drop"] | None = None,
    size: tuple[int, int] | None = None,
) -> Example | str | None:
    """An example of what a row holds, or a reason that names no file: equal ones are counted.

    None is an example to be left out, because its suffix is empty.

    Args:
        name: becomes the `id`.
        images: a path or a list of paths.
        prefix: not blank.
        suffixes: an answer or a list of answers, of which blank ones are left out; `""` alone is
            right where nothing is to be found.
        folder: what relative paths are relative to.
        empty: see `ExampleSource.empty`.
        size: see `Example`.
    """
    paths, answers = _texts(images), _texts(suffixes)
    if paths is None:
        return "the image is neither a path nor a list of paths"
    if not paths or not all(paths):
        return "no image"
    if not isinstance(prefix, str | None):
        return "the prefix is not text"
    if any(len(each) > CELL for each in (*paths, *(answers or ()), prefix or "")):
        return f"a text of more than {CELL} characters"
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
        if answers != [""] or suffixes is None:
            return "no suffix"
        if empty == "drop":
            return None
        if empty is None and task_of(asked) not in _MAY_FIND_NOTHING:
            return "no suffix"
        right = ("",)
    uris = tuple(resolve(path, folder) for path in paths)
    return Example(name, uris, utf8(asked), right, size)


def truth(value: object) -> bool:
    """A truth value of JSON that others have written: a boolean, a number, a word, or nothing.

    Raises:
        ValueError: it is none.
    """
    word = value.strip().lower() if isinstance(value, str) else value
    if word in (True, 1, "true", "yes", "1"):
        return True
    if word in (None, False, 0, "false", "no", "0", ""):
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _texts(value: Any) -> list[str] | None:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str | None) for each in values):
        return None
    return [utf8(each or "") for each in values]


def utf8(text: str) -> str:
    """The text as it can be stored."""
    # Lone surrogates, which JSON can smuggle in, are not UTF-8.
    return text.encode(errors="backslashreplace").decode()
