"""Specs from YAML files, with fields overridden by name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from paliflow.configs.base import Spec, SpecError

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
    """Reads a spec from a YAML file.

    Args:
        kind: which spec it is.
        path: of the file; relative paths in it are relative to this process's folder.
        overrides: each `field=value`, the value in YAML and the field by its path, e.g.
            `lora.rank=8` or `train.0.weight=2`; an empty value is null.

    Raises:
        SpecError: no such file, not a mapping in YAML, or not such a spec.
    """
    try:
        data = _parse(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise SpecError(f"{path}: cannot be read: {said}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not YAML: {error}") from None
    if not isinstance(data, dict):
        raise SpecError(f"{path}: a spec is a mapping of fields, this is {type(data).__name__}")
    for override in overrides:
        _set(data, override)
    try:
        return kind.parse(data)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _set(data: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise SpecError(f"--set {override!r}: give field=value")
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {override!r}: the value is not YAML: {error}") from None
    *parents, last = name.split(".")
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
        raise SpecError(f"--set {override!r}: the spec has no such place") from None
