"""The strictness that every spec shares: unknown keys refused, errors that name field and fix."""

import ast
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

_SHOWN = 20
"""As many of a spec's errors are said."""
_SIGNED_URI = re.compile(r"\b(?!gs:)\w+://")
_QUERY_ENDS = re.compile(r"[\s'\"]")


class SpecError(ValueError):
    """A spec that cannot run; the message names each field, its value and what is wrong."""


class QuarantineError(SpecError):
    """A run that is done and that its gate holds back, until somebody looks at it."""


class ClusterError(RuntimeError):
    """The cluster cannot do it now; the next try may find it otherwise."""


# Half of the time that importing specs takes is pydantic's, over those that nobody uses. Older
# versions may take a class that one thread is about to complete for its parent in another.
_LATER = tuple(map(int, pydantic.VERSION.split(".")[:2])) >= (2, 14)


class Spec(BaseModel):
    """A frozen pydantic model that refuses unknown keys.

    A template's text, and what Airflow's native rendering makes of it, mean what was written: where
    a list or a mapping is meant, text that is one in JSON or Python is that one, and text that is
    none is the only item of a list; where text is meant, a number is its digits.
    """

    model_config = ConfigDict(
        coerce_numbers_to_str=True,
        defer_build=_LATER,
        extra="forbid",
        frozen=True,
        strict=False,
        use_attribute_docstrings=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _container_from_text(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str) or info.field_name is None:
            return value
        meant = set(_alternatives(cls.model_fields[info.field_name].annotation))
        if str in meant:
            return value
        if tuple in meant:
            return items_of(value)
        parsed = _parsed(value)
        return parsed if isinstance(parsed, dict) else value

    @classmethod
    def parse(cls, data: dict[str, Any] | str) -> Self:
        """Validates a mapping or a JSON document.

        Raises:
            SpecError: with one line for each field that is wrong.
        """
        try:
            return (
                cls.model_validate_json(data) if isinstance(data, str) else cls.model_validate(data)
            )
        except ValidationError as error:
            lines = [explain(cls, detail) for detail in causes(error)]
            if error.error_count() > _SHOWN:
                lines.append(f"... ({error.error_count()} errors)")
            raise SpecError(f"{cls.__name__}: " + "; ".join(lines)) from None

    def given(self) -> str:
        """Returns the fields that were given as JSON, which an older Paliflow understands too where
        it knows those: what a newer one has added besides is left to its default."""
        return self.model_dump_json(exclude_unset=True)


_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Returns foreign text as one line that commands no terminal: control characters, line
    separators, turns of the reading direction and lone surrogates are written as escapes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def redacted(text: str) -> str:
    """The text, its URIs without users, passwords and queries, where signatures travel."""
    text = re.sub(r"(\w://)[^\s/?#]*@", r"\1", text)
    kept: list[str] = []
    secret = False
    # One pass: a pattern that looks for the end of each URI takes the square of the text's length.
    for number, piece in enumerate(text.split("?")):
        if secret:
            end = _QUERY_ENDS.search(piece)
            piece = piece[end.start() :] if end else ""
            secret = not end
        elif number:
            kept.append("?")
        kept.append(piece)
        secret = secret or bool(_SIGNED_URI.search(piece))
    return "".join(kept)


def brief(text: str, limit: int = 500) -> str:
    """The text if it is short, else its beginning and how long it was."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}... ({len(text)} characters)"


def causes(error: ValidationError) -> list[Any]:
    """Pydantic's errors, without those that follow from one inside: whose items are all wrong is
    too short besides."""
    details = error.errors(include_url=False)[:_SHOWN]
    paths = [detail["loc"] for detail in details]
    return [
        detail
        for detail in details
        if not any(
            len(path) > len(detail["loc"]) and path[: len(detail["loc"])] == detail["loc"]
            for path in paths
        )
    ]


def explain(spec: type[BaseModel], detail: Any) -> str:
    """One of pydantic's errors in a line: the field's path, its value and what is wrong with it."""
    # Without the tags of unions, such as "(text)", which stand where the spec has nothing.
    path = tuple(step for step in detail["loc"] if not str(step).startswith("("))
    field = ".".join(map(str, path))
    if detail["type"] == "extra_forbidden":
        known = _model_at(spec, path[:-1]).model_fields
        near = get_close_matches(str(path[-1]), known, n=1)
        hint = f", did you mean {near[0]}?" if near else ";"
        return f"{field}: unknown field{hint} It has {', '.join(sorted(known))}"
    if detail["type"] == "missing":
        return f"{field}: required and missing"
    if not path:
        return str(detail["msg"])
    return f"{field}={brief(redacted(repr(detail['input'])))}: {detail['msg']}"


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types that a value may have, without their parameters."""
    origin = get_origin(annotation)
    if origin in (Annotated, Union, UnionType):
        for part in get_args(annotation)[: 1 if origin is Annotated else None]:
            yield from _alternatives(part)
    else:
        yield origin or annotation


def items_of(text: str) -> Sequence[object]:
    """The items of a list that is written as text; any other text is the only item."""
    parsed = _parsed(text)
    return parsed if isinstance(parsed, list | tuple) else (text,)


def _parsed(text: str) -> object:
    """What is written in JSON or as a Python literal; None if it is neither."""
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return parse(text)
    return None


def _model_at(spec: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that a path through a spec leads to, past the indices and keys of containers."""
    tagged: dict[Any, type[BaseModel]] = {}  # of a union, by the value that tells them apart
    for step in path:
        if step in tagged:
            spec = tagged[step]
        elif field := spec.model_fields.get(str(step)):
            models = list(_models_in(field.annotation))
            tagged = {
                each.default: model
                for model in models
                for each in model.model_fields.values()
                if get_origin(each.annotation) is Literal and len(get_args(each.annotation)) == 1
            }
            spec = next(iter(models), spec)
    return spec


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
