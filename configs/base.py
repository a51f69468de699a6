"""The strictness that every spec shares: unknown keys refused, errors that name field and fix."""

import re
from difflib import get_close_matches
from typing import Any, Self

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
            lines = [_explain(cls, detail) for detail in error.errors(include_url=False)]
            raise SpecError(f"{cls.__name__}: " + "; ".join(lines)) from None


def redacted(text: str) -> str:
    """The text, its URIs without users, passwords and queries, where signatures travel."""
    text = re.sub(r"(\w://)[^\s/?#]*@", r"\1", text)
    return re.sub(r"\b(?!gs:)(\w+://[^?]*)\?[^\s'\"]*", r"\1", text)


def _explain(cls: type[BaseModel], detail: Any) -> str:
    field = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(str(detail["loc"][-1]), cls.model_fields, n=1)
        hint = f", did you mean {near[0]}?" if near else ";"
        return f"{field}: unknown field{hint} It has {', '.join(sorted(cls.model_fields))}"
    if detail["type"] == "missing":
        return f"{field}: required and missing"
    if not detail["loc"]:
        return str(detail["msg"])
    return f"{field}={redacted(repr(detail['input']))}: {detail['msg']}"
