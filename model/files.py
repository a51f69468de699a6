"""Model files from anywhere: a local path, or a `gs://` copy that lasts as long as it is used."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import Any

from paliflow.configs.folders import private_folder

BUNDLED_CHECKPOINT = Path(__file__).parent / "bundled" / "model.npz"
"""The handwriting reader that ships with Paliflow; `tokenizer.model` lies beside it."""


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """A file or folder as a local path; `gs://` is downloaded and removed afterwards.

    Once for all processes of a host that want it at the same time: the last of them removes it.

    Raises:
        FileNotFoundError: nothing is there.
        PermissionError: the folder for downloads is open to other users.
    """
    text = str(path)
    if not text.startswith("gs://"):
        local = Path(text)
        if not local.exists():
            raise FileNotFoundError(f"no such file or folder: {text}")
        yield local
        return
    blobs = _blobs(text)
    versions = [(text, inner, blob.generation) for inner, blob in blobs.items()]
    copy = private_folder() / hashlib.sha256(repr(versions).encode()).hexdigest()[:16]
    with copy.with_suffix(".read").open("a") as reading:
        flock(reading, LOCK_SH)  # while anyone has this, the copy stays
        with copy.with_suffix(".write").open("a") as writing:
            flock(writing, LOCK_EX)
            if not copy.exists():
                with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
                    for inner, blob in blobs.items():
                        target = Path(folder, "files", inner)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        blob.download_to_filename(str(target))
                    Path(folder, "files").rename(copy)
        try:
            yield copy / min(blobs).partition("/")[0]
        finally:
            with suppress(BlockingIOError):  # someone else reads it
                flock(reading, LOCK_EX | LOCK_NB)
                shutil.rmtree(copy)


def _blobs(uri: str) -> dict[str, Any]:
    """An object, or those below a prefix, by their path from the last part of its name on."""
    from google.cloud import storage

    bucket, _, name = uri.removeprefix("gs://").rstrip("/").partition("/")
    found = {
        f"{Path(name).name}{blob.name.removeprefix(name)}": blob
        for blob in storage.Client().list_blobs(bucket, prefix=name)
        if blob.name == name or (blob.name.startswith(f"{name}/") and not blob.name.endswith("/"))
    }
    if not found:
        raise FileNotFoundError(f"no such object or prefix: {uri}")
    return found


def checkpoint_sha256(path: Path) -> str:
    """Digest of a file, or of the names and contents of all files in a folder."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        line = f"{file_path.relative_to(path).as_posix()} {checkpoint_sha256(file_path)}\n"
        total.update(line.encode())
    return total.hexdigest()
