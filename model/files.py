"""Model files from anywhere: a local path, or a `gs://` copy that lasts as long as it is used."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUNDLED_CHECKPOINT = Path(__file__).parent / "bundled" / "model.npz"
"""The handwriting reader that ships with Paliflow; `tokenizer.model` lies beside it."""


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """A file or folder as a local path; `gs://` is downloaded and removed afterwards.

    Raises:
        FileNotFoundError: nothing is there.
    """
    text = str(path)
    if not text.startswith("gs://"):
        local = Path(text)
        if not local.exists():
            raise FileNotFoundError(f"no such file or folder: {text}")
        yield local
        return
    from google.cloud import storage

    bucket, _, name = text.removeprefix("gs://").rstrip("/").partition("/")
    with tempfile.TemporaryDirectory(prefix="paliflow-") as folder:
        root = Path(folder) / Path(name).name
        found = False
        for blob in storage.Client().list_blobs(bucket, prefix=name):
            inner = blob.name.removeprefix(name)
            if blob.name.endswith("/") or not (inner == "" or inner.startswith("/")):
                continue
            target = root / inner.lstrip("/") if inner else root
            target.parent.mkdir(parents=True, exist_ok=True)
            blob.download_to_filename(str(target))
            found = True
        if not found:
            raise FileNotFoundError(f"no such object or prefix: {text}")
        yield root


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
