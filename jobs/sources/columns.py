"""What a spec takes from a record (a manifest's row, a tar's sample): prompts, id, metadata."""

import json
import math
from collections.abc import Collection, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cache
from string import Formatter
from typing import Any
from uuid import UUID

from paliflow.configs.annotate import AnnotateSpec, SourceSpec
from paliflow.configs.base import SpecError, brief
from paliflow.configs.prompts import PromptSpec, say_stripped, stripped, text_of
from paliflow.jobs.runs.plan import Item

Record = Mapping[str, Any]
CELL = 2**16
"""Characters, or bytes, of a text in a row: a path, a prompt, an id."""
_DEEP = 64


def named_columns(spec: SourceSpec) -> dict[str, str]:
    """The columns that prompts, id and metadata need; each with the field that names it.

    Raises:
        SpecError: a prompt's braces are no `{column}`.
    """
    named = {}
    for prompt in spec.prompts if isinstance(spec, AnnotateSpec) else ():
        for _, column in _template(text_of(prompt)):
            if column is not None:
                named[column] = f"prompts={text_of(prompt)!r}"
        if column := _choices_column(prompt):
            named[column] = f"choices_column={column!r}"
    for field in ("prompt_column", "id_column"):
        if column := getattr(spec, field, None):
            named[column] = f"{field}={column!r}"
    if spec.video and (column := spec.video.group_column):
        named[column] = f"video.group_column={column!r}"
    return named | {column: f"metadata_columns={column!r}" for column in spec.metadata_columns}


def require(named: Mapping[str, str], present: Collection[str]) -> None:
    """
    Raises:
        SpecError: a column that is named is not present.
    """
    for column, field in named.items():
        if column not in present:
            raise SpecError(
                f"{field}: no such column as {column!r}; there are "
                f"{brief(', '.join(present)) or 'none'}"
            )


def text(record: Record, column: str) -> str:
    """A column's value as text: null is empty, what JSON has no string for is written as JSON.

    Raises:
        ValueError: the value is bytes, or of a type that JSON has no words for, or too long.
    """
    value = _value(record, column)
    if value is None:
        return ""
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(said) > CELL:
        raise ValueError(
            f"column {column!r} holds a text of {len(said)} characters; a cell holds {CELL} at most"
        )
    return said


def describe(item: Item, record: Record, spec: SourceSpec) -> Item:
    """Gives an item its record's prompts, id and metadata.

    A prompt whose column is null or blank is not asked. Where none is left, the item is asked
    the empty prompt, which becomes its error row. What is around a prompt is taken off, as it is
    of the spec's.

    Raises:
        ValueError: as in `text`.
    """
    id_column = spec.id_column or (spec.video and spec.video.group_column)
    carried = {column: _value(record, column) for column in spec.metadata_columns}
    metadata = json.dumps(carried, ensure_ascii=False) if carried else None
    if metadata and len(metadata) > len(carried) * CELL:
        raise ValueError(f"metadata_columns hold {len(metadata)} characters; each may hold {CELL}")
    item = item._replace(
        id=text(record, id_column) or None if id_column else item.id,
        metadata=metadata,
    )
    return _asked(item, record, spec) if isinstance(spec, AnnotateSpec) else item


def _asked(item: Item, record: Record, spec: AnnotateSpec) -> Item:
    """Gives an item its record's prompts, where they are others than the spec's."""
    asked = [_filled(_template(prompt), record) for prompt in spec.texts]
    if spec.prompt_column:
        asked.append(text(record, spec.prompt_column))
    bare = [stripped(prompt) for prompt in asked]
    if bare != asked and any(bare):
        say_stripped("prompts of rows")
    places: dict[str, int] = {}
    for place, prompt in enumerate(bare):
        if prompt:
            places.setdefault(prompt, place)
    prompts: tuple[str, ...] | None = tuple(places) or ("",)
    asks: tuple[int, ...] | None = None
    choices: tuple[str | None, ...] | None = None
    if any(not isinstance(prompt, str) for prompt in spec.prompts):
        asks = tuple(places.values()) or None
        columns = [*map(_choices_column, spec.prompts), None]
        own = [columns[place] for place in places.values()]
        if any(own):
            choices = tuple(column and text(record, column) for column in own)
    elif prompts == spec.texts:
        prompts = None
    return item._replace(prompts=prompts, asks=asks, choices=choices)


def _choices_column(prompt: str | PromptSpec) -> str | None:
    return None if isinstance(prompt, str) else prompt.choices_column


@cache
def _template(prompt: str) -> tuple[tuple[str, str | None], ...]:
    """Pieces of literal text, each with the column that follows it.

    Raises:
        SpecError: the braces do not match, or hold more than a name.
    """
    try:
        pieces = [
            (literal, column, bool(form or conversion))
            for literal, column, form, conversion in Formatter().parse(prompt)
        ]
    except ValueError as error:
        raise SpecError(_misread(prompt, str(error))) from None
    for _, column, formatted in pieces:
        if formatted or column == "":
            raise SpecError(_misread(prompt, "braces hold a column's name and nothing else"))
    return tuple((literal, column) for literal, column, _ in pieces)


def _misread(prompt: str, why: str) -> str:
    return f"prompts={prompt!r}: {why}; a literal brace is written twice"


def _filled(template: tuple[tuple[str, str | None], ...], record: Record) -> str:
    """The prompt; empty if one of its columns is."""
    pieces = []
    for literal, column in template:
        pieces.append(literal)
        if column is not None:
            value = text(record, column)
            if not value.strip():
                return ""
            pieces.append(value)
    return "".join(pieces)


def _value(record: Record, column: str) -> Any:
    try:
        return _plain(record.get(column))
    except TypeError as error:
        raise ValueError(f"column {column!r} holds {error}") from None


def _plain(value: Any, depth: int = 0) -> Any:
    """In JSON's types."""
    if depth > _DEEP:
        raise TypeError(f"values that are nested more than {_DEEP} deep")
    match value:
        case None | bool() | int():
            return value
        case str():
            # Lone surrogates, which JSON can smuggle in, are not UTF-8.
            return value.encode(errors="backslashreplace").decode()
        case float():
            return value if math.isfinite(value) else None
        case date() | time():
            return value.isoformat()
        case Decimal() | UUID() | timedelta():
            return str(value)
        case Mapping():
            return {str(_plain(key)): _plain(own, depth + 1) for key, own in value.items()}
        case list() | tuple():
            return [_plain(inner, depth + 1) for inner in value]
    raise TypeError(f"{type(value).__name__}, which JSON cannot")
