"""A spec's fields as an operator's keyword arguments, checked when the DAG is parsed."""

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from paliflow.configs.base import Spec, SpecError, causes, explain

Init = TypeVar("Init", bound=Callable[..., None])


def takes_fields_of(spec: type[Spec], *, optional: Collection[str] = ()) -> Callable[[Init], Init]:
    """Declares a spec's fields as keyword arguments of an `__init__` that ends in `**kwargs`.

    Airflow reads the signature to apply `default_args`, to check `.partial()` and `.expand()`
    and to name arguments that are missing; `optional` are fields the operator can fill itself.
    """
    fields = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=field.annotation,
            default=inspect.Parameter.empty
            if field.is_required() and name not in optional
            else field.get_default(call_default_factory=True)
            if not field.is_required()
            else None,
        )
        for name, field in spec.model_fields.items()
    ]

    def declare(init: Init) -> Init:
        signature = inspect.signature(init)
        *own, rest = signature.parameters.values()
        init.__signature__ = signature.replace(parameters=[*own, *fields, rest])  # type: ignore[attr-defined]
        return init

    return declare


def check_fields(spec: type[Spec], fields: Mapping[str, Any], *, whole: bool = True) -> None:
    """Validates what of a spec's fields is known before a DAG run, down to the last nested one.

    Args:
        spec: whose fields they are.
        fields: what is given of them.
        whole: whether these are all; else how they fit together is not judged.

    Raises:
        SpecError: naming each field, its value and what is wrong with it.
    """
    try:
        spec.model_validate(fields)
    except ValidationError as error:
        wrong = [
            explain(spec, detail)
            for detail in causes(error)
            if _is_certain(detail, fields) and (whole or detail["loc"])
        ]
        if wrong:
            raise SpecError(f"{spec.__name__}: " + "; ".join(wrong)) from None


def refuse_unknown(operator: type, spec: type[Spec], names: Iterable[str]) -> None:
    """Names the field that was meant, where Airflow names the argument alone, or misses another.

    Raises:
        TypeError: an argument is neither the spec's, nor the operator's, nor Airflow's.
    """
    taken = set(spec.model_fields)
    for each in operator.__mro__[:-1]:
        taken.update(inspect.signature(each.__init__).parameters)  # type: ignore[misc]
    for name in names:
        if name not in taken and not name.startswith("_"):  # those are between Airflow's parts
            near = get_close_matches(name, taken, n=1)
            hint = f", did you mean {near[0]}?" if near else ";"
            fields = ", ".join(sorted(spec.model_fields))
            raise TypeError(f"{operator.__name__} has no {name}{hint} Its fields are {fields}")


def _is_certain(detail: Any, fields: Mapping[str, Any]) -> bool:
    path = detail["loc"]
    if not path:  # an error of fields together, which names those it is about
        later = [name for name, value in fields.items() if rendered_later(value)]
        return not any(re.search(rf"\b{name}\b", detail["msg"]) for name in later)
    if path[0] not in fields:
        return False  # a missing argument is Airflow's to name
    named = detail["type"] in ("missing", "extra_forbidden")  # keys are not templated
    return named or not rendered_later(detail["input"])


def rendered_later(value: object) -> bool:
    """Whether Airflow replaces the value at run time: Jinja, XCom, DAG parameters."""
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return any(map(rendered_later, value.values()))
    if isinstance(value, list | tuple):
        return any(map(rendered_later, value))
    return hasattr(value, "iter_references")
