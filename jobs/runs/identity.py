"""A run is what its spec says: another spec may not take its name."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from paliflow.configs.base import SpecError
from paliflow.configs.run import RunSpec


def differences(before: Mapping[str, Any], spec: RunSpec) -> list[str]:
    """The fields in which a run's spec differs from the one that asks for it, but for how and
    where it is done; each with both values.

    Args:
        before: the run's spec as JSON; a field that an older version did not have counts as its
            default.
        spec: the spec that names the same run.
    """
    now = spec.model_dump(mode="json")
    if (kind := before.get("kind", now["kind"])) != now["kind"]:
        return [f"kind was {kind!r}, is {now['kind']!r}"]
    before = _with_defaults(before, type(spec))
    defaults = type(spec).model_construct().model_dump(mode="json", warnings=False)
    fields = [name for name in {**now, **before} if name not in spec.EXECUTION_FIELDS]
    return [
        f"{name} was {was!r}, is {now.get(name)!r}"
        for name in fields
        if (was := before.get(name, defaults.get(name))) != now.get(name)
    ]


def _with_defaults(before: Mapping[str, Any], kind: type[RunSpec]) -> Mapping[str, Any]:
    """A spec as this version writes it, down to nested fields that an older one did not have."""
    try:
        return kind.model_validate(dict(before)).model_dump(mode="json")
    except ValidationError:  # of a version that allowed more
        return before


def check_same_spec(before: Mapping[str, Any], spec: RunSpec) -> None:
    """
    Raises:
        SpecError: naming each field that differs, as in `differences`.
    """
    if changed := differences(before, spec):
        raise SpecError(
            f"run_id={spec.run_id!r} is a run of another spec: {'; '.join(changed)}. Take another "
            "run_id, or the spec as it was; a task that is cleared in Airflow starts over"
        )
