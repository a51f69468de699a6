"""Model files from anywhere: a local path, or a `gs://` copy that lasts as long as it is used."""

import errno
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

from paliflow import storage
from paliflow.configs.folders import private_folder

BUNDLED_CHECKPOINT = Path(__file__).parent / "bundled" / "model.npz"
"""The handwriting reader that ships with Paliflow; `tokenizer.model` lies beside it."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_REPOSITORY = re.compile(r"(?:.*/)?([\w.-]+/[\w.-]+)")
_MESSAGE = 4000
"""Characters at most of what is said of a checkpoint, whose names may be of any length."""
_EXPANSION = 20
"""Weights hardly compress: what unpacks to more times its size is made to fill the memory."""


class CheckpointError(ValueError):
    """A checkpoint that is not a PaliGemma; the message lists what is wrong with it."""

    def __init__(self, message: str) -> None:
        """Cuts a message that is too long for a log."""
        super().__init__(message if len(message) <= _MESSAGE else f"{message[:_MESSAGE]} ...")


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a library raises about a model file into an error that names the file.

    Args:
        path: the file or folder that is read.
        kind: what it should be, e.g. `safetensors file`.

    Raises:
        CheckpointError: the file is malformed, or Git LFS left a pointer in its place.
    """
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise CheckpointError(
                    f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its "
                    "repository, or download the file"
                )
    try:
        yield
    except (CheckpointError, MemoryError, PermissionError):
        raise
    except Exception as error:
        # Libraries raise exceptions of their own, which have nothing in common.
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ETIMEDOUT):
            raise
        raise CheckpointError(
            f"{path} is not a readable {kind}: {error or type(error).__name__}; download or export "
            "it again"
        ) from error


def require_plausible_size(declared: int, stored: int) -> None:
    """
    Raises:
        ValueError: a file of `stored` bytes declares so much content that it is no model's.
    """
    if declared > _EXPANSION * stored:
        raise ValueError(
            f"its {stored} bytes unpack to {declared}, more than {_EXPANSION} times as many"
        )


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """A file or folder as a local path; `gs://` is downloaded and removed afterwards.

    Once for all processes of a host that want it at the same time: the last of them removes it.

    Raises:
        FileNotFoundError: nothing is there.
        PermissionError: the folder for downloads is open to other users.
        ValueError: an object's name cannot be that of a file below a folder.
    """
    text = str(path)
    if not text.startswith("gs://"):
        local = Path(text)
        if not local.exists():
            raise FileNotFoundError(f"no such file or folder: {text}{_hint(text)}")
        yield local
        return
    objects = _objects(text.rstrip("/"))
    versions = [(text, inner, each.version) for inner, each in objects.items()]
    copy = private_folder() / hashlib.sha256(repr(versions).encode()).hexdigest()[:16]
    with copy.with_suffix(".read").open("a") as reading:
        flock(reading, LOCK_SH)  # while anyone has this, the copy stays
        with copy.with_suffix(".write").open("a") as writing:
            flock(writing, LOCK_EX)
            if not copy.exists():
                with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
                    for inner, each in objects.items():
                        target = Path(folder, "files", inner)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        storage.download(each, target)
                    Path(folder, "files").rename(copy)
        try:
            yield copy / min(objects).partition("/")[0]
        finally:
            with suppress(BlockingIOError):  # someone else reads it
                flock(reading, LOCK_EX | LOCK_NB)
                shutil.rmtree(copy)


def _objects(uri: str) -> dict[str, storage.Entry]:
    """An object, or those below a prefix, by their path from the last part of its name on."""
    version = storage.version(uri)
    entries = [storage.Entry(uri, version)] if version else storage.list_files(uri)
    found = {_relative_path(uri, entry.uri): entry for entry in entries}
    if not found:
        raise FileNotFoundError(f"no such object or prefix: {uri}")
    return found


def _relative_path(prefix: str, name: str) -> str:
    """Where an object below a prefix lies in its copy: its name from the prefix's last part on.

    Raises:
        ValueError: there is no such file below any folder.
    """
    path = prefix.rpartition("/")[2] + name.removeprefix(prefix)
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
        raise ValueError(
            f"no file can have the name of the object {name!r}; delete or rename the object"
        )
    return path


def _hint(path: str) -> str:
    """What a missing path may have been meant to be."""
    repository = _REPOSITORY.fullmatch(path)
    if not repository or path.endswith(".npz") or Path(path).parent.exists():
        return ""
    return (
        f"; if {repository[1]} is a repository of Hugging Face, download it with `hf download "
        f"{repository[1]} --local-dir FOLDER` and give FOLDER"
    )


def checkpoint_sha256(path: Path, tokenizer: Path | None = None) -> str:
    """Digest of a checkpoint with its tokenizer, where there is one; see `checkpoint_digests`."""
    return checkpoint_digests(path, tokenizer)[0]


def checkpoint_digests(path: Path, tokenizer: Path | None = None) -> tuple[str, ...]:
    """Digest of a checkpoint with its tokenizer, then of a file alone, as before Paliflow had both.

    Args:
        path: a file, or a folder, of which the names and contents of all files count.
        tokenizer: `tokenizer.model` beside a file if not given, and in a folder.
    """
    if path.is_dir():
        weights = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            line = f"{file.relative_to(path).as_posix()} {_file_sha256(file)}\n"
            weights.update(line.encode())
        alone = weights.hexdigest()
    else:
        alone = _file_sha256(path)
        tokenizer = tokenizer or path.with_name("tokenizer.model")
    if not (tokenizer and tokenizer.is_file()):
        return (alone,)
    both = f"{alone} {_file_sha256(tokenizer)}\n"
    return hashlib.sha256(both.encode()).hexdigest(), alone


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
