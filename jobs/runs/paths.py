"""Specs name files from wherever the job was started; runs go on elsewhere."""

import io
import uuid
from pathlib import Path
from typing import TypeVar

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.configs.run import RunSpec

_FIELDS = {
    "input", "output", "checkpoint", "compilation_cache", "registry", "tokenizer", "mask_decoder",
    "allowed_roots", "exclude_near", "calibration",
}  # fmt: skip
_S = TypeVar("_S", bound=RunSpec)


def with_absolute_paths(spec: _S) -> _S:
    """The spec with its paths made absolute, but not those inside its sources of examples.

    Raises:
        SpecError: a URI of an unknown kind.
    """
    paths = spec.model_dump(include=_FIELDS, exclude_none=True)
    for field, path in [*paths.items()]:
        try:
            if field == "exclude_near" and not all(isinstance(each, str) for each in path):
                del paths[field]  # sources of examples
            elif field in ("allowed_roots", "exclude_near"):
                paths[field] = tuple(map(storage.absolute, path))
            elif not path.startswith("registry://"):
                paths[field] = storage.absolute(path)
        except ValueError as error:
            raise SpecError(f"{field}: {error}") from None
    return spec.model_copy(update=paths)


def require_folder(spec: RunSpec) -> None:
    """Makes the run's folder, where it is local, so that what is wrong with it is said at once.

    Raises:
        SpecError: there cannot be a folder.
    """
    if "://" in spec.location:
        return
    try:
        Path(spec.location).mkdir(parents=True, exist_ok=True)
        # What every part needs: some mounts cannot create a file only if there is none.
        probe = f"{spec.location}/.probe-{uuid.uuid4().hex}"
        storage.commit_if_absent(probe, io.BytesIO())
        storage.delete(probe)
    except OSError as error:
        raise SpecError(
            f"output={spec.output!r}: no folder can be made there: {error.strerror}: "
            f"{error.filename}; give a folder that you may write to"
        ) from None
