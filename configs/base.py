"""The strictness that every spec shares: unknown keys refused, errors that name field and fix."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError


class SpecError(ValueError):
    """A spec that cannot run; the message names each field, its value and what is wrong."""


class ClusterError(RuntimeError):
    """The cluster cannot do it now; the next try may find it otherwise."""


class Spec(BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True
    )

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
            raise SpecError(f"{cls.__name__}: " + "; ".join(lines)) from None


def printable(text: str) -> str:
    """The text with a replacement for each character that a terminal or a log would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def redacted(text: str) -> str:
    """The text, its URIs without users, passwords and queries, where signatures travel."""
    text = re.sub(r"(\w://)[^\s/?#]*@", r"\1", text)
    return re.sub(r"\b(?!gs:)(\w+://[^?]*)\?[^\s'\"]*", r"\1", text)


def causes(error: ValidationError) -> list[Any]:
    """Pydantic's errors, without those that follow from one inside: whose items are all wrong is
    too short besides."""
    details = error.errors(include_url=False)
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
    path = detail["loc"]
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
    return f"{field}={redacted(repr(detail['input']))}: {detail['msg']}"


def _model_at(spec: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that a path through a spec leads to, past the indices and keys of containers."""
    for step in path:
        if field := spec.model_fields.get(str(step)):
            spec = next(_models_in(field.annotation), spec)
    return spec


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
