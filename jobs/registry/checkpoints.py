"""A checkpoint and its tokenizer as local files that fit each other, and their digests."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.jobs.registry import aliases
from paliflow.jobs.registry.locations import Resolved, tokenizer_beside
from paliflow.model import Tokenizer, checkpoint_sha256, local_copy
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.files import checkpoint_digests
from paliflow.model.weights import infer_config

_LASTING = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
"""Of the errors of files, those that another try meets again."""


def digest_of(resolved: Resolved, tokenizer: str | None = None) -> str:
    """The digest of weights with their tokenizer; reads all of them if no registry says."""
    return digests_of(resolved, tokenizer)[0]


def digests_of(resolved: Resolved, tokenizer: str | None = None) -> tuple[str, ...]:
    """As `digest_of`, and the digest that runs of older versions have, without the tokenizer."""
    if resolved.sha256:
        return (resolved.sha256,)
    with ExitStack() as stack:
        return _open(stack, resolved.checkpoint, tokenizer)[2]


class Opened(NamedTuple):
    """A checkpoint and its tokenizer on this machine, which fit each other."""

    path: Path
    tokenizer: Tokenizer
    sha256: str
    """What the registry says, or `digests[0]`."""
    digests: tuple[str, ...]
    """As `digests_of`."""


@contextmanager
def opened(resolved: Resolved, tokenizer: str) -> Iterator[Opened]:
    """A checkpoint and its tokenizer as local files, for as long as they are read.

    Raises:
        SpecError: one is missing or malformed, they do not fit each other, or they are not what
            was registered.
    """
    checkpoint = resolved.checkpoint
    with ExitStack() as stack:
        path, local, digests = _open(stack, checkpoint, tokenizer)
        assert local
        if resolved.sha256 not in (None, *digests):
            raise SpecError(
                f"checkpoint={checkpoint!r}: its digest is {digests[0]}, but the registry says "
                f"{resolved.sha256}: the file was changed since, or its tokenizer; register it "
                "again, as a new version"
            )
        with loading("tokenizer", tokenizer):
            read = Tokenizer.from_file(local)
        with loading("checkpoint", checkpoint):
            leaves, described = read_checkpoint(path)
            shapes = {name: leaf.shape for name, leaf in leaves.items()}
            config = infer_config(shapes, **described)
        with loading("tokenizer", tokenizer):
            read.require_fit(config.text)
        with loading("checkpoint", checkpoint):
            yield Opened(path, read, resolved.sha256 or digests[0], digests)


def _open(
    stack: ExitStack, checkpoint: str, tokenizer: str | None
) -> tuple[Path, Path | None, tuple[str, ...]]:
    """Both as local files, and their digests."""
    local = None
    if tokenizer:
        with loading("tokenizer", tokenizer):
            local = stack.enter_context(local_copy(tokenizer))
    with loading("checkpoint", checkpoint):
        path = stack.enter_context(local_copy(checkpoint))
        inside = tokenizer and tokenizer.startswith(f"{checkpoint.rstrip('/')}/")
        return path, local, checkpoint_digests(path, None if inside else local)


@contextmanager
def loading(field: str, value: object) -> Iterator[None]:
    """Turns what a bad file of a spec's field raises into a `SpecError` that names it."""
    try:
        yield
    except SpecError:
        raise
    except (*_LASTING, ValueError, TypeError) as error:
        raise SpecError(f"{field}={value!r}: {error}") from error


def weights_of(checkpoint: str) -> aliases.Weights:
    """A checkpoint as a registry knows it, with the tokenizer beside it; reads all of it.

    Raises:
        SpecError: there is none, or the tokenizer is another's.
    """
    with loading("checkpoint", checkpoint):
        where = storage.absolute(checkpoint)
        tokenizer = tokenizer_beside(where)
        if storage.is_file(tokenizer):
            with opened(Resolved(where, None), tokenizer) as files:
                return aliases.Weights(where, files.sha256)
        with local_copy(where) as path:
            leaves, described = read_checkpoint(path)
            infer_config({name: leaf.shape for name, leaf in leaves.items()}, **described)
            return aliases.Weights(where, checkpoint_sha256(path))
