"""Where a spec's weights and tokenizer are, and what `registry://` stands for."""

import posixpath
from typing import NamedTuple

from paliflow.configs.run import ModelSpec
from paliflow.jobs.registry import aliases
from paliflow.model.files import BUNDLED_CHECKPOINT


class Resolved(NamedTuple):
    """Weights that stay the same whatever becomes of an alias."""

    checkpoint: str
    """A path or URI, never `registry://`."""
    sha256: str | None
    """What the registry says their digest is; None where no registry was asked."""
    calibration: str | None = None
    """Where the registry has their `calibration.json`; None if it has none."""


def resolve(spec: ModelSpec) -> Resolved:
    """What a spec's checkpoint stands for now.

    A run does this once, when it begins, and keeps the answer.

    Raises:
        SpecError: the registry has no such name, alias or version.
    """
    where = checkpoint_of(spec)
    if not where.startswith("registry://"):
        return Resolved(where, None)
    assert spec.registry  # the spec checks
    version = aliases.find(spec.registry, where)
    return Resolved(version.checkpoint, version.sha256, version.calibration)


def checkpoint_of(spec: ModelSpec) -> str:
    """Where a spec says that its weights are."""
    return spec.checkpoint or str(BUNDLED_CHECKPOINT)


def tokenizer_of(tokenizer: str | None, checkpoint: str) -> str:
    """Where a run's tokenizer is.

    Args:
        tokenizer: what the spec says.
        checkpoint: what the spec's resolved to; if no tokenizer is named, it lies beside that.
    """
    return tokenizer or tokenizer_beside(checkpoint)


def tokenizer_beside(checkpoint: str) -> str:
    """Where a checkpoint's tokenizer is if nothing says otherwise: in the weights' folder."""
    folder = posixpath.dirname(checkpoint) if checkpoint.endswith(".npz") else checkpoint
    return posixpath.join(folder, "tokenizer.model")
