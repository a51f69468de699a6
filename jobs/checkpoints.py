"""Where a spec's weights and tokenizer are, and what `registry://` stands for."""

import posixpath
from typing import NamedTuple

from paliflow.configs.base import SpecError
from paliflow.configs.run import ModelSpec
from paliflow.jobs import registry, storage
from paliflow.model import BUNDLED_CHECKPOINT, checkpoint_sha256, local_copy
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.weights import infer_config


class Resolved(NamedTuple):
    """Weights that stay the same whatever becomes of an alias."""

    checkpoint: str
    """A path or URI, never `registry://`."""
    sha256: str | None
    """What the registry says their digest is; None where no registry was asked."""


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
    version = registry.find(spec.registry, where)
    return Resolved(version.checkpoint, version.sha256)


def checkpoint_of(spec: ModelSpec) -> str:
    """Where a spec says that its weights are."""
    return spec.checkpoint or str(BUNDLED_CHECKPOINT)


def tokenizer_of(spec: ModelSpec, checkpoint: str) -> str:
    """Where a spec's tokenizer is.

    Args:
        spec: may name it.
        checkpoint: what the spec's resolved to; else the tokenizer lies beside it.
    """
    folder = posixpath.dirname(checkpoint) if checkpoint.endswith(".npz") else checkpoint
    return spec.tokenizer or posixpath.join(folder, "tokenizer.model")


def digest_of(resolved: Resolved) -> str:
    """The digest of weights; reads all of them if no registry says."""
    if resolved.sha256:
        return resolved.sha256
    with local_copy(resolved.checkpoint) as path:
        return checkpoint_sha256(path)


def require_digest(resolved: Resolved, sha256: str) -> None:
    """
    Raises:
        SpecError: weights that were read are not those that were registered.
    """
    if resolved.sha256 not in (None, sha256):
        raise SpecError(
            f"checkpoint={resolved.checkpoint!r}: its digest is {sha256}, but the registry says "
            f"{resolved.sha256}: the file was changed since; register it again, as a new version"
        )


def weights_of(checkpoint: str) -> registry.Weights:
    """A checkpoint as a registry knows it; reads all of it.

    Raises:
        SpecError: there is none.
    """
    try:
        where = storage.absolute(checkpoint)
        with local_copy(where) as path:
            leaves, described = read_checkpoint(path)
            infer_config({name: leaf.shape for name, leaf in leaves.items()}, **described)
            return registry.Weights(where, checkpoint_sha256(path))
    except (FileNotFoundError, PermissionError, ValueError) as error:
        raise SpecError(f"checkpoint={checkpoint!r}: {error}") from error
