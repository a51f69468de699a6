"""Local files: only regular ones are read; written whole, synced, by link or rename."""

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from paliflow.storage.entry import Entry

_NO_LINKS = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK)
"""What file systems without hard links say."""
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
"""Of Linux's renameat2(2)."""


def read_bytes(uri: str, offset: int, size: int | None, limit: int | None) -> bytes:
    """See `paliflow.storage`, here and below."""
    with open_binary(uri) as file:
        if size is None and limit is not None and os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", uri)
        file.seek(offset)
        return file.read() if size is None else file.read(size)


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[BinaryIO]:
    # Opening a pipe waits for its writer, unless one asks not to.
    opener = lambda _, flags: os.open(_path(uri), flags | os.O_NONBLOCK)  # noqa: E731
    try:
        opened = open(uri, "rb", opener=opener)  # noqa: SIM115 -- below
    except NotADirectoryError:  # what is below a file is not there
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri) from None
    with opened as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", uri)
        yield file


def is_file(uri: str) -> bool:
    return Path(uri).is_file()


def version(uri: str) -> str | None:
    try:
        found = os.stat(_path(uri))  # noqa: PTH116 -- may be bytes
    except OSError:
        return None
    return f"{found.st_size}-{found.st_mtime_ns}"


def list_files(folder: str) -> Iterator[Entry]:
    yield from _walk(folder, frozenset())


def match(pattern: str) -> Iterator[Entry]:
    found = glob.iglob(pattern, recursive=True)  # noqa: PTH207 -- Path.glob refuses absolutes
    yield from (_entry(path) for path in sorted(found) if not Path(path).is_dir())


def commit_if_absent(uri: str, content: BinaryIO) -> bool:
    target = Path(uri)
    with _synced_beside(target, content) as temporary:
        try:
            _move_if_absent(temporary, target)
        except FileExistsError:
            return False
    _sync_folder(target.parent)
    return True


def copy_if_absent(uri: str, target: str) -> None:
    try:
        os.link(uri, target)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open_binary(uri) as file:
            commit_if_absent(target, file)
    _sync_folder(Path(target).parent)


def overwrite(uri: str, content: BinaryIO) -> None:
    target = Path(uri)
    with _synced_beside(target, content) as temporary:
        temporary.replace(target)
    _sync_folder(target.parent)


def replace(uri: str, content: BinaryIO, seen: str | None) -> bool:
    if seen is None:
        return commit_if_absent(uri, content)
    target = Path(uri)
    with _synced_beside(target, content) as temporary, _locked(target):
        if seen != version(uri):
            return False
        # Clocks of file systems are coarse: no later version may look like an earlier one.
        before, now = target.stat(), temporary.stat()
        os.utime(temporary, ns=(now.st_atime_ns, max(now.st_mtime_ns, before.st_mtime_ns + 1)))
        temporary.replace(target)
    _sync_folder(target.parent)
    return True


def delete(uri: str) -> None:
    Path(uri).unlink()


def _move_if_absent(temporary: Path, target: Path) -> None:
    """Gives a file its name in one step, by a hard link or, where there are none, by a rename.

    Raises:
        FileExistsError: the name is taken.
        OSError: ENOTSUP if the file system, some FUSE and network mounts, can do neither.
    """
    try:
        os.link(temporary, target)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(temporary), os.fsencode(target)
    if renameat2 and not renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
        return
    if renameat2 and ctypes.get_errno() == errno.EEXIST:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    said = "the file system has neither hard links nor renames that replace nothing"
    raise OSError(errno.ENOTSUP, said, str(target))


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Among threads and processes; a lock goes with its process, and its file stays."""
    with target.with_name(f".{target.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _synced_beside(target: Path, content: BinaryIO) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Readers of Parquet folders skip names that start with a dot.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    content.seek(0)
    try:
        with temporary.open("xb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: str, above: frozenset[str]) -> Iterator[Entry]:
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        # A folder sorts as its objects would on gs://, by its name and a slash.
        names = sorted(entry.name + "/" * _is_folder(entry) for entry in entries)
    for name in names:
        path = os.path.join(folder, name)  # noqa: PTH118 -- Path drops the slash, and is slow
        if name.endswith("/"):
            yield from _walk(path[:-1], above | {real})
        else:
            yield _entry(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entry(path: str) -> Entry:
    return Entry(os.fsencode(path).decode(errors="backslashreplace"), version(path))


def real_path(uri: str) -> str:
    """Where a file is, all links resolved; one that is not there may still be a path."""
    return os.fsdecode(os.path.realpath(_path(uri)))


def _path(uri: str) -> str | bytes:
    """Undoes what `_entry` does to a name that is not UTF-8, of which no byte is a dot or slash."""
    if "\\x" not in uri or os.path.lexists(uri):
        return uri
    return re.sub(rb"\\x([89a-f][0-9a-f])", lambda m: bytes([int(m[1], 16)]), os.fsencode(uri))
