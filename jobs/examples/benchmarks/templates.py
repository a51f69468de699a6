"""Templates of prompts, ids and paths: `{field}`, `{a.b}` by a path, `{image_id:012d}`."""

from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any

Record = Mapping[str, Any]


def values_at(record: Any, path: str) -> Iterator[Any]:
    """The values at a path of fields; through a list it goes to all of its items.

    What is not there is no value, and neither is null.
    """
    if isinstance(record, list):
        for item in record:
            yield from values_at(item, path)
        return
    if not path:
        if record is not None:
            yield record
        return
    if not isinstance(record, Mapping):
        return
    if path in record:  # a key with a full stop in it
        yield from values_at(record[path], "")
        return
    first, _, rest = path.partition(".")
    if first in record:
        yield from values_at(record[first], rest)


def value_at(record: Record, path: str) -> Any:
    """The first value at a path.

    Raises:
        ValueError: there is none.
    """
    for value in values_at(record, path):
        return value
    raise ValueError(f"no field {path!r}")


def fill(template: str, record: Record, joined: str = ", ") -> str:
    """A template with a record's values; the items of a list are joined.

    Raises:
        ValueError: the record lacks a field, or its value is of the wrong kind.
    """
    return _Filler(joined).vformat(template, (), record)


def fill_known(template: str, values: Mapping[str, str]) -> str:
    """A template in which the fields that are known already are filled in."""
    parts = []
    for literal, field, form, _ in Formatter().parse(template):
        parts.append(literal.replace("{", "{{").replace("}", "}}"))
        if field is not None:
            parts.append(values[field] if field in values else f"{{{field}{form and ':' + form}}}")
    return "".join(parts)


def static_folder(template: str) -> str:
    """The folders of a path's template that no field decides; empty if its first is decided."""
    literal, field, _, _ = next(iter(Formatter().parse(template)), (template, None, None, None))
    return literal.rpartition("/")[0] if field is not None else template.rpartition("/")[0]


class _Filler(Formatter):
    """Looks fields up by their path and never by an attribute of a value."""

    def __init__(self, joined: str) -> None:
        self._joined = joined

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        values = list(values_at(kwargs, field_name))
        if not values:
            raise ValueError(f"no field {field_name!r}")
        value = values[0] if len(values) == 1 else self._joined.join(map(str, values))
        return value, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec.endswith("d") and isinstance(value, str) and value.isdecimal():
            value = int(value)  # some files write their numbers as text
        return str(format(value, format_spec))
