"""Storage: whole files, created once, listed in order; local and gs://."""

import io
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.jobs import storage


@pytest.fixture(params=["local", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path, gcs: None) -> str:
    """A fresh folder."""
    return str(tmp_path) if request.param == "local" else f"gs://images/{tmp_path.name}"


def put(uri: str, content: bytes = b"x") -> bool:
    return storage.commit_if_absent(uri, io.BytesIO(content))


def test_what_was_committed_reads_back_whole_and_in_ranges(root: str) -> None:
    content = bytes(range(256)) * 40_000  # more than one request can upload
    assert put(f"{root}/new/folder/file", content)
    assert storage.read_bytes(f"{root}/new/folder/file") == content
    with storage.open_binary(f"{root}/new/folder/file") as file:
        file.seek(-10, io.SEEK_END)
        assert file.read() == content[-10:]
        file.seek(300)
        assert file.read(5) == content[300:305]


def test_the_second_commit_changes_nothing(root: str) -> None:
    assert put(f"{root}/file", b"first")
    assert not put(f"{root}/file", b"second")
    assert storage.read_bytes(f"{root}/file") == b"first"
    assert list(storage.list_files(root)) == [f"{root}/file"]


def test_of_many_writers_at_once_exactly_one_wins(root: str) -> None:
    barrier = threading.Barrier(8)
    wins: list[int] = []

    def write(number: int) -> None:
        barrier.wait()
        if put(f"{root}/file", bytes([number]) * 100_000):
            wins.append(number)

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = wins
    assert storage.read_bytes(f"{root}/file") == bytes([winner]) * 100_000


def test_a_commit_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 0:
                raise OSError("the disk is gone")
            return super().read(10)

    with pytest.raises(OSError, match="the disk is gone"):
        storage.commit_if_absent(str(tmp_path / "file"), Failing(bytes(100)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["nothing", "folder/nothing"])
def test_a_missing_file_is_file_not_found(root: str, missing: str) -> None:
    put(f"{root}/folder/something")
    assert not storage.is_file(f"{root}/{missing}")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{root}/{missing}")
    with pytest.raises(FileNotFoundError), storage.open_binary(f"{root}/{missing}") as file:
        file.read()


def test_a_folder_is_not_a_file(root: str) -> None:
    put(f"{root}/folder/something")
    assert not storage.is_file(f"{root}/folder")
    assert storage.is_file(f"{root}/folder/something")


def test_files_are_listed_in_the_same_order_everywhere(root: str) -> None:
    names = ["a.jpg", "a/b.jpg", "a/c/d.jpg", "a-b.jpg", "a0.jpg", "Z.jpg", "é.jpg", "b c.jpg"]
    for name in names:
        put(f"{root}/{name}")
    assert list(storage.list_files(root)) == [f"{root}/{name}" for name in sorted(names)]


def test_a_glob_matches_in_order(root: str) -> None:
    for name in ["b.jpg", "a.jpg", "a.png", "deep/er/c.jpg", "x.jpg/d.png"]:
        put(f"{root}/{name}")
    assert list(storage.match(f"{root}/*.jpg")) == [f"{root}/a.jpg", f"{root}/b.jpg"]
    found = [f"{root}/{name}" for name in ("a.jpg", "b.jpg", "deep/er/c.jpg")]
    assert list(storage.match(f"{root}/**/*.jpg")) == found


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").touch()
    (tmp_path / "folder" / "circle").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    found = list(storage.list_files(str(tmp_path)))
    assert found == [f"{tmp_path}/folder/a.jpg", f"{tmp_path}/link/a.jpg"]


def test_a_name_that_is_not_utf8_is_listed_as_text(tmp_path: Path) -> None:
    Path(str(tmp_path) + "/a\udcff.jpg").touch()
    assert list(storage.list_files(str(tmp_path))) == [f"{tmp_path}/a\\xff.jpg"]


@given(st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1))
def test_absolute_is_idempotent(name: str) -> None:
    once = storage.absolute(name)
    assert once.startswith("/")
    assert storage.absolute(once) == once


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="s3://bucket"):
        storage.absolute("s3://bucket/folder")
