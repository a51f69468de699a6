"""The reader `records`: rows of a benchmark whose files are lists of records."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from paliflow.configs.benchmark import Join, Rows, Turned
from paliflow.jobs.examples.benchmarks.files import records
from paliflow.jobs.examples.benchmarks.templates import fill, value_at, values_at
from paliflow.jobs.media.edits import Edit

Files = Mapping[str, str]
"""URIs by what a benchmark's `files` and `folders` call them."""


class Row(NamedTuple):
    """One row of a benchmark, before its templates are filled in."""

    id: str
    """Unique within a part of the benchmark."""
    fields: Mapping[str, Any]
    """What templates may name."""
    answers: tuple[str, ...]
    """What is right; none where a server has it."""
    groups: Mapping[str, list[str]]
    """Of a group the values that the row has; usually one."""
    details: Mapping[str, Any]
    """What a metric or a submission needs besides; of JSON's types."""
    edit: Edit | None = None
    """What is drawn on its images, or which part of its video counts."""
    images: tuple[str, ...] = ()
    """Where its images are, if the benchmark's templates do not say it."""


def read_rows(
    how: Rows, files: Files, values: Mapping[str, str], *, answered: bool = True
) -> Iterator[Row | str]:
    """The rows of a file's records in their order; a record that is none is a reason why.

    Args:
        how: the benchmark's `rows`.
        files: of the part.
        values: what templates may name there.
        answered: whether the files say what is right; if not, nothing is joined.

    Raises:
        ValueError: a file is not in the form that is announced.
        OSError: a file cannot be read.
    """
    joins = [(join, _lookup(join, files)) for join in how.join] if answered else []
    wanted = {
        path: {fill(each, values) for each in ([own] if isinstance(own, str) else own)}
        for path, own in how.where.items()
    }
    found = _joined(how, files, joins, wanted)
    turns = _turns(how.turned, files) if how.turned else {}
    for record in _grouped(found, how) if how.group_by else found:
        row = record if isinstance(record, str) else _row(record, how)
        if turns and how.turned and isinstance(row, Row):
            own = turns.get(_text(next(values_at(row.fields, how.turned.on), None)))
            row = row._replace(edit=Edit(turns=own)) if own else row
        yield row


def _turns(how: Turned, files: Files) -> dict[str, int]:
    """Quarter turns of the images that are to be turned.

    Raises:
        ValueError: the table says no multiple of 90.
    """
    turns = {}
    for record in records(files[how.file]) if how.file in files else ():
        said = float(record.get(how.degrees) or 0)
        if math.isnan(said) or not said:
            continue
        if said % 90:
            raise ValueError(f"{how.file}: {how.degrees}={said:g} is no multiple of 90")
        turns[_text(record.get(how.key))] = int(said // 90) % 4
    return turns


def _joined(
    how: Rows,
    files: Files,
    joins: list[tuple[Join, dict[str, dict[str, Any]]]],
    wanted: Mapping[str, set[str]],
) -> Iterator[dict[str, Any] | str]:
    for number, found in enumerate(records(files[how.file], how.at, lines=how.lines)):
        record: dict[str, Any] = {"row": number, **found}
        lost = None
        for join, lookup in joins:
            key = next(values_at(record, join.on), None)
            if (other := lookup.get(_text(key))) is None:
                lost = f"no record of {join.file} has its {join.on}"
            else:
                record = {**other, **record}
        if all(
            any(_text(value) in values for value in values_at(record, path))
            for path, values in wanted.items()
        ):
            yield lost or record


def _lookup(join: Join, files: Files) -> dict[str, dict[str, Any]]:
    lookup: dict[str, dict[str, Any]] = {}
    for record in records(files[join.file], join.at):
        key = _text(next(values_at(record, join.key), None))
        if join.all:
            own = lookup.setdefault(key, {})
            for field, value in record.items():
                own.setdefault(field, []).append(value)
        else:
            lookup[key] = record
    return lookup


def _grouped(found: Iterator[dict[str, Any] | str], how: Rows) -> Iterator[dict[str, Any] | str]:
    """One record for each value of a field: the first, with the answers of all."""
    assert how.group_by
    assert how.answers
    first: dict[str, dict[str, Any]] = {}
    answers: dict[str, list[Any]] = {}
    for record in found:
        if isinstance(record, str):
            yield record
            continue
        key = next(values_at(record, how.group_by), None)
        if key is None:
            yield f"no field {how.group_by!r}"
            continue
        first.setdefault(_text(key), record)
        answers.setdefault(_text(key), []).extend(values_at(record, how.answers))
    for key, record in first.items():
        yield {**record, how.answers: answers[key]}


def _row(record: Mapping[str, Any], how: Rows) -> Row | str:
    try:
        answers = [] if how.answers is None else list(values_at(record, how.answers))
        if how.index and answers:
            answers = [answers[int(value_at(record, how.index))]]
        groups = {
            name: list(map(_text, values_at(record, path))) for name, path in how.groups.items()
        }
        details: dict[str, Any] = {name: list(values_at(record, name)) for name in how.keep}
        if how.key:
            details["key"] = value_at(record, how.key)
        if how.cluster:
            details["cluster"] = _text(value_at(record, how.cluster))
        row_id = fill(how.id, record)
    except (ValueError, TypeError, IndexError) as error:
        return f"{error}" if isinstance(error, ValueError) else f"a field is wrong: {error}"
    return Row(row_id, record, tuple(map(_text, answers)), groups, details)


def _text(value: object) -> str:
    """What a value of JSON is called in an answer or a group: 2.0 is 2, true is True."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else str(value)
