"""Folders that other users could have made first, or can write to, are refused."""

import tempfile
from pathlib import Path

import pytest

from paliflow.configs.folders import private_folder, require_closed


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_for_temporary_files_is_the_users_alone(temporary: Path) -> None:
    folder = private_folder()
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder() == folder


def test_a_link_in_place_of_the_folder_for_temporary_files_is_refused(temporary: Path) -> None:
    folder = private_folder()
    folder.rmdir()
    (temporary / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(temporary / "elsewhere")
    with pytest.raises(PermissionError, match=f"{folder} has to be .* no link"):
        private_folder()


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_an_open_folder_for_temporary_files_is_refused(temporary: Path, mode: int) -> None:
    private_folder().chmod(mode)
    with pytest.raises(PermissionError, match="mode 0700; remove it or set TMPDIR"):
        private_folder()


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_cache_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    cache = tmp_path / "a" / "cache"
    require_closed(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o755)
    require_closed(cache)
    cache.chmod(mode)
    with pytest.raises(PermissionError, match=f"other users can write to {cache}.*chmod go-w"):
        require_closed(cache)
