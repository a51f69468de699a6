"""Folders that nobody else may write to: this user's own for temporary files, and caches."""

import os
import stat
import tempfile
from pathlib import Path


def private_folder() -> Path:
    """Returns this user's folder for temporary files, which no other user can read or write.

    Raises:
        PermissionError: another user has made it, or opened it to others.
    """
    folder = Path(tempfile.gettempdir(), f"paliflow-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()  # whoever makes a link there first would choose the folder
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not mine or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(
            f"{folder} has to be a folder of this user's alone, no link, mode 0700; remove it or "
            "set TMPDIR"
        )
    return folder


def require_closed(folder: Path) -> None:
    """Makes a folder of whose contents code is run, unless it is there.

    Raises:
        PermissionError: another user owns it or can write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid not in (os.getuid(), 0) or stat.S_IMODE(status.st_mode) & 0o022:
        raise PermissionError(
            f"other users can write to {folder}, and what lies there is run as code: "
            "`chmod go-w` it, or name a folder of this user's own"
        )
