"""The wire format of `tf.train.Example`, of which TFDS's records are: features and their bytes."""

import struct
from collections.abc import Iterator

Value = tuple[int, int] | int | float
"""Of bytes, from where to where they lie in the record."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def features(record: bytes) -> dict[str, list[Value]]:
    """The features of a record, by their names.

    Source: https://github.com/tensorflow/tensorflow, core/example/feature.proto.

    Raises:
        ValueError: it is no `tf.train.Example`.
    """
    try:
        found: dict[str, list[Value]] = {}
        for number, _, whole in _fields(record, 0, len(record)):
            for _, _, entry in _fields(record, *_span(whole)) if number == 1 else ():
                name, values = "", list[Value]()
                for part, _, own in _fields(record, *_span(entry)):
                    if part == 1:
                        name = record[slice(*_span(own))].decode()
                    elif part == 2:
                        values = list(_values(record, *_span(own)))
                found[name] = values
    except (IndexError, TypeError, struct.error, UnicodeDecodeError):
        raise ValueError("a record is no tf.train.Example") from None
    return found


def _values(record: bytes, start: int, stop: int) -> Iterator[Value]:
    """The values of a feature: a list of bytes (1), of float (2) or of int64 (3)."""
    for kind, _, own in _fields(record, start, stop):
        for _, wire, value in _fields(record, *_span(own)):
            if kind == 1:
                yield _span(value)
            elif kind == 2:
                spans = _span(value)
                yield from struct.unpack(f"<{(spans[1] - spans[0]) // 4}f", record[slice(*spans)])
            elif wire == _VARINT and isinstance(value, int):
                yield _signed(value)
            else:
                at, end = _span(value)
                while at < end:
                    number, at = _varint(record, at)
                    yield _signed(number)


def _fields(
    record: bytes, start: int, stop: int
) -> Iterator[tuple[int, int, tuple[int, int] | int]]:
    """The number, wire type and value of each field of a message."""
    at = start
    while at < stop:
        key, at = _varint(record, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(record, at)
            yield key >> 3, wire, value
            continue
        if wire == _LENGTH:
            size, at = _varint(record, at)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}[wire] if wire in (_FIXED64, _FIXED32) else stop
        if at + size > stop:
            raise IndexError
        yield key >> 3, wire, (at, at + size)
        at += size


def _span(value: tuple[int, int] | int) -> tuple[int, int]:
    if isinstance(value, int):
        raise TypeError
    return value


def _varint(record: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = record[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise IndexError


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value
