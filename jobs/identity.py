"""A run is what its spec says: another spec may not take its name."""

from collections.abc import Mapping
from typing import Any

from paliflow.configs.base import SpecError
from paliflow.configs.run import RunSpec


def require_same(before: Mapping[str, Any], spec: RunSpec) -> None:
    """Compares a run's spec with the one that asks for it, but for how and where it is done.

    Args:
        before: the run's spec as JSON; a field that an older version did not have counts as its
            default.
        spec: the spec that names the same run.

    Raises:
        SpecError: naming each field that differs.
    """
    now = spec.model_dump(mode="json")
    defaults = type(spec).model_construct().model_dump(mode="json", warnings=False)
    fields = [name for name in {**now, **before} if name not in spec.HOW]
    changed = [
        f"{name} was {was!r}, is {now.get(name)!r}"
        for name in fields
        if (was := before.get(name, defaults.get(name))) != now.get(name)
    ]
    if changed:
        raise SpecError(
            f"run_id={spec.run_id!r} is a run of another spec: {'; '.join(changed)}. Take another "
            "run_id, or the spec as it was"
        )
