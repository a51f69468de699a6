"""Specs from YAML files and from the `field=value` of a command line."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from paliflow.configs.base import Spec, SpecError
from paliflow.configs.run import run_id_now

S = TypeVar("S", bound=Spec)


class _Loader(yaml.SafeLoader):
    """YAML whose scalars are text or null. What a text means is for its field to say: YAML's own
    types make a date of a run's name, and a number of a class's."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)  # a SafeLoader


def load_spec(kind: type[S], path: str | Path, overrides: Iterable[str] = ()) -> S:
    """Reads a spec from a YAML file. A run that has no `run_id` is named by the time.

    Args:
        kind: which spec it is.
        path: of the file; relative paths in it are relative to this process's folder.
        overrides: each `field=value`, as in `set_field`.

    Raises:
        SpecError: no such file, not a mapping in YAML, or not such a spec.
    """
    try:
        return make_spec(kind, read_fields(path), overrides)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def make_spec(kind: type[S], fields: Mapping[str, Any], overrides: Iterable[str] = ()) -> S:
    """As `load_spec`, of fields that a file or options have given."""
    data = dict(fields)
    for override in overrides:
        set_field(data, override, "--set")
    if "run_id" in kind.model_fields and data.get("run_id") is None:
        data["run_id"] = run_id_now()
    return kind.parse(data)


def read_fields(path: str | Path) -> dict[str, Any]:
    """The fields that a YAML file gives.

    Raises:
        SpecError: no such file, or not a mapping in YAML; the path is not in the message.
    """
    try:
        data = _parse(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise SpecError(f"cannot be read: {said}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"not YAML: {error}") from None
    if not isinstance(data, dict):
        raise SpecError(f"a spec is a mapping of fields, this is {type(data).__name__}")
    return data


def set_field(data: dict[str, Any], assignment: str, option: str, within: str = "") -> None:
    """Sets a field to what was written as `field=value`.

    Args:
        data: the fields of a spec, which are changed.
        assignment: the value in YAML and the field by its path, e.g. `lora.rank=8` or
            `train.0.weight=2`; an empty value is null.
        option: the option that it was given to, for the error.
        within: the path of the field that the path begins in, e.g. `video`.

    Raises:
        SpecError: there is no `=`, the value is not YAML, or there is no such place.
    """
    said = f"{option} {assignment!r}"
    name, text = name_and_value(assignment, option)
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{said}: the value is not YAML: {error}") from None
    set_value(data, [*filter(None, [within]), *name.split(".")], value, said)


def set_value(data: dict[str, Any], path: Sequence[str], value: object, said: str) -> None:
    """As `set_field`, of a value that is not text to be parsed; errors begin with `said`."""
    *parents, last = path
    place: Any = data
    try:
        for parent in parents:
            if isinstance(place, list):
                place = place[int(parent)]
                continue
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
        place[int(last) if isinstance(place, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError):
        raise SpecError(f"{said}: the spec has no such place") from None


def name_and_value(assignment: str, option: str) -> tuple[str, str]:
    """What stands before and after the first `=`.

    Args:
        assignment: `name=value`.
        option: the option that it was given to, for the error.

    Raises:
        SpecError: there is no `=`, or nothing before it.
    """
    name, equals, value = assignment.partition("=")
    if not equals or not name:
        raise SpecError(f"{option} {assignment!r}: give name=value")
    return name, value
