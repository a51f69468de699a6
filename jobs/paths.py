"""Specs name files from wherever the job was started; runs go on elsewhere."""

from typing import TypeVar

from paliflow.configs.base import SpecError
from paliflow.configs.run import RunSpec
from paliflow.jobs import storage

_FIELDS = {
    "input", "output", "checkpoint", "compilation_cache", "registry", "tokenizer", "mask_decoder",
    "allowed_roots",
}  # fmt: skip
_S = TypeVar("_S", bound=RunSpec)


def with_absolute_paths(spec: _S) -> _S:
    """The spec with its paths made absolute, but not those inside its sources of examples.

    Raises:
        SpecError: a URI of an unknown kind.
    """
    paths = spec.model_dump(include=_FIELDS, exclude_none=True)
    for field, path in paths.items():
        try:
            if field == "allowed_roots":
                paths[field] = tuple(map(storage.absolute, path))
            elif not path.startswith("registry://"):
                paths[field] = storage.absolute(path)
        except ValueError as error:
            raise SpecError(f"{field}: {error}") from None
    return spec.model_copy(update=paths)
