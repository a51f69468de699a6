"""Storage: whole files, created once, listed in order; local and gs://."""

import ctypes
import errno
import gzip
import io
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from google.cloud.storage import Client
from hypothesis import given
from hypothesis import strategies as st

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError, redacted
from paliflow.jobs.runs.paths import require_folder
from paliflow.storage import remote


@pytest.fixture(params=["local", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path, gcs: None) -> str:
    """A fresh folder."""
    return str(tmp_path) if request.param == "local" else f"gs://images/{tmp_path.name}"


def put(uri: str, content: bytes = b"x") -> bool:
    return storage.commit_if_absent(uri, io.BytesIO(content))


def names(entries: Iterable[storage.Entry]) -> list[str]:
    return [entry.uri for entry in entries]


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
    assert names(storage.list_files(root)) == [f"{root}/file"]


def test_of_many_writers_at_once_exactly_one_wins(root: str) -> None:
    barrier = threading.Barrier(8)
    wins: list[int] = []

    def write(number: int) -> None:
        barrier.wait()
        if put(f"{root}/file", bytes([number]) * 100_000):
            wins.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    (winner,) = wins
    assert storage.read_bytes(f"{root}/file") == bytes([winner]) * 100_000


def test_a_replacement_needs_the_version_it_has_seen(root: str) -> None:
    def replace(content: bytes, seen: str | None) -> bool:
        return storage.replace(f"{root}/new/file", io.BytesIO(content), seen)

    assert not replace(b"x", "1")  # there is nothing yet
    assert replace(b"one", None)
    assert not replace(b"x", None)
    seen = {storage.version(f"{root}/new/file")}
    for content in (b"two", b"six", b"ten"):  # as fast as can be, and of one size
        earlier = storage.version(f"{root}/new/file")
        assert replace(content, earlier)
        assert not replace(b"x", earlier)
        seen.add(storage.version(f"{root}/new/file"))
    assert len(seen) == 4
    assert storage.read_bytes(f"{root}/new/file") == b"ten"
    storage.delete(f"{root}/new/file")
    assert not replace(b"x", seen.pop())


def test_of_many_who_count_at_once_none_is_forgotten(root: str) -> None:
    uri = f"{root}/count"
    put(uri, b"0")

    def count(_: int) -> None:
        while True:
            seen = storage.version(uri)
            if storage.replace(uri, io.BytesIO(b"%d" % (int(storage.read_bytes(uri)) + 1)), seen):
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(40)))
    assert storage.read_bytes(uri) == b"40"


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
    files = ["a.jpg", "a/b.jpg", "a/c/d.jpg", "a-b.jpg", "a0.jpg", "Z.jpg", "é.jpg", "b c.jpg"]
    for name in files:
        put(f"{root}/{name}")
    assert names(storage.list_files(root)) == [f"{root}/{name}" for name in sorted(files)]


def test_a_glob_matches_in_order(root: str) -> None:
    for name in ["b.jpg", "a.jpg", "a.png", "deep/er/c.jpg", "x.jpg/d.png"]:
        put(f"{root}/{name}")
    assert names(storage.match(f"{root}/*.jpg")) == [f"{root}/a.jpg", f"{root}/b.jpg"]
    found = [f"{root}/{name}" for name in ("a.jpg", "b.jpg", "deep/er/c.jpg")]
    assert names(storage.match(f"{root}/**/*.jpg")) == found


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").touch()
    (tmp_path / "folder" / "circle").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    found = names(storage.list_files(str(tmp_path)))
    assert found == [f"{tmp_path}/folder/a.jpg", f"{tmp_path}/link/a.jpg"]


def test_a_name_that_is_not_utf8_is_listed_as_text(tmp_path: Path) -> None:
    Path(str(tmp_path) + "/a\udcff.jpg").touch()
    assert names(storage.list_files(str(tmp_path))) == [f"{tmp_path}/a\\xff.jpg"]


@given(st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1))
def test_absolute_is_idempotent(name: str) -> None:
    once = storage.absolute(name)
    assert once.startswith("/")
    assert storage.absolute(once) == once


def test_the_version_is_listed_and_changes_with_the_content(root: str) -> None:
    put(f"{root}/a", b"one")
    before = storage.version(f"{root}/a")
    assert before is not None
    assert list(storage.list_files(root)) == [(f"{root}/a", before)]
    assert list(storage.match(f"{root}/*")) == [(f"{root}/a", before)]
    storage.overwrite(f"{root}/a", io.BytesIO(b"two"))
    assert storage.version(f"{root}/a") not in (None, before)
    assert storage.version(f"{root}/b") is None


def test_overwriting_replaces_or_creates(root: str) -> None:
    for content in (b"one", b"", b"three"):
        storage.overwrite(f"{root}/new/file", io.BytesIO(content))
        assert storage.read_bytes(f"{root}/new/file") == content
    assert len(list(storage.list_files(root))) == 1


def test_what_is_deleted_is_gone_and_deleting_it_again_is_fine(root: str) -> None:
    put(f"{root}/file")
    for _ in range(2):
        storage.delete(f"{root}/file")
        assert not storage.is_file(f"{root}/file")


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 3), (2, 3), (5, 10), (8, 2), (10, 4), (3, 0), (3, None), (0, None)]
)
def test_a_range_ends_with_the_file(root: str, offset: int, size: int | None) -> None:
    put(f"{root}/file", b"0123456789")
    end = None if size is None else offset + size
    assert storage.read_bytes(f"{root}/file", offset, size) == b"0123456789"[offset:end]


def test_a_file_above_the_limit_is_not_read(root: str) -> None:
    put(f"{root}/file", bytes(1000))
    assert len(storage.read_bytes(f"{root}/file", limit=1000)) == 1000
    with pytest.raises(OSError, match="larger than 999 bytes") as caught:
        storage.read_bytes(f"{root}/file", limit=999)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(OSError, match="larger than 999 bytes"):
        storage.read_bytes(f"{root}/file", 0, 1000, limit=999)


def test_an_open_object_is_never_mixed_with_another(gcs: None, tmp_path: Path) -> None:
    uri = f"gs://images/{tmp_path.name}/file"
    put(uri, bytes(3_000_000))

    def read_while_it_is_replaced() -> bytes:
        with storage.open_binary(uri) as file:
            assert file.read(10) == bytes(10)
            storage.overwrite(uri, io.BytesIO(b"1" * 3_000_000))
            return file.read()

    with pytest.raises(OSError, match="412"):
        read_while_it_is_replaced()


@pytest.mark.parametrize("special", ["fifo", "folder", "device"])
def test_only_regular_files_are_read(tmp_path: Path, special: str) -> None:
    path = tmp_path / "a.jpg"
    if special == "fifo":
        os.mkfifo(path)
    elif special == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        storage.read_bytes(str(path))


def test_a_link_to_itself_is_listed_and_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("a.jpg")
    assert list(storage.list_files(str(tmp_path))) == [(f"{tmp_path}/a.jpg", None)]
    with pytest.raises(OSError, match="symbolic links"):
        storage.read_bytes(f"{tmp_path}/a.jpg")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder of fsspec's file system in memory, which stands for those of the clouds."""
    monkeypatch.setattr(remote, "SCHEMES", ("memory",))
    filesystem = fsspec.filesystem("memory")
    for name in ("b.jpg", "a/c.jpg", "a.jpg", "a-b.png"):
        filesystem.pipe(f"/folder/{name}", name.encode())
    yield "memory://folder"
    filesystem.rm("/folder", recursive=True)


def test_what_fsspec_knows_is_read(memory: str) -> None:
    root = "memory:///folder"
    listed = ["a-b.png", "a.jpg", "a/c.jpg", "b.jpg"]
    assert names(storage.list_files(memory)) == [f"{root}/{name}" for name in listed]
    assert names(storage.match(f"{memory}/*.jpg")) == [f"{root}/a.jpg", f"{root}/b.jpg"]
    for name in listed:
        assert storage.read_bytes(f"{memory}/{name}") == name.encode()
    assert storage.read_bytes(f"{memory}/a/c.jpg", 2, 2) == b"c."
    assert storage.is_file(f"{memory}/a.jpg")
    assert not storage.is_file(f"{memory}/a")
    with storage.open_binary(f"{memory}/a.jpg") as file:
        assert file.read() == b"a.jpg"
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{memory}/nothing")
    with pytest.raises(OSError, match="larger than 3 bytes"):
        storage.read_bytes(f"{memory}/a.jpg", limit=3)


def test_outputs_are_local_or_on_gs(memory: str) -> None:
    for write in (storage.commit_if_absent, storage.overwrite):
        with pytest.raises(OSError, match="outputs are local or gs://"):
            write(f"{memory}/new", io.BytesIO())


def test_a_scheme_whose_library_is_missing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    remote._filesystem.cache_clear()
    with pytest.raises(OSError, match=r"s3:// needs: pip install 'paliflow\[s3\]'"):
        storage.read_bytes("s3://bucket/a.jpg")


@pytest.mark.parametrize(
    "uri",
    [
        "http://host/a.jpg",
        "HTTPS://host/a.jpg",
        "file:///etc/passwd",
        "gss://bucket",
        "generic://http://host/a.jpg",
        "simplecache::https://host",
        "nope://user:secret@host/?token=secret",
    ],
)
def test_other_schemes_are_refused(uri: str) -> None:
    for use in (storage.absolute, storage.read_bytes, storage.is_file, storage.version):
        with pytest.raises(ValueError, match=":// is not read; give a local path") as caught:
            use(uri)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("https://images.example/a.jpg", True),
        ("https://IMAGES.example/a.jpg?size=2", True),
        ("https://other.example:8443/a.jpg", True),
        ("gs://anything/a.jpg", True),
        ("/images/a.jpg", True),
        ("https://other.example/a.jpg", False),
        ("https://images.example:444/a.jpg", False),
        ("https://images.example.evil.example/a.jpg", False),
        ("https://sub.images.example/a.jpg", False),
        ("https://images.example@evil.example/a.jpg", False),
        ("https://user:secret@images.example/a.jpg", False),
        ("https://evil.example/?https://images.example", False),
        ("https://evil.example\\@images.example/", False),
        ("https:///a.jpg", False),
    ],
)
def test_https_is_for_the_listed_hosts_alone(uri: str, allowed: bool) -> None:
    hosts = ("images.example", "other.example:8443")
    if allowed:
        storage.check_host(uri, hosts)
    else:
        with pytest.raises(PermissionError, match="not among https_hosts") as caught:
            storage.check_host(uri, hosts)
        assert "secret" not in str(caught.value)


def test_what_is_redacted_keeps_its_place() -> None:
    text = "GET https://user:secret@host/a b.jpg?X-Goog-Signature=secret&x=1: 403, s3://k:s@b/a"
    assert redacted(text) == "GET https://host/a b.jpg 403, s3://b/a"
    assert redacted("gs://bucket/a?b@c.jpg") == "gs://bucket/a?b@c.jpg"


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_hard_links_a_file_is_still_created_only_if_absent(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_links)
    assert put(f"{tmp_path}/file", b"first")
    assert not put(f"{tmp_path}/file", b"second")
    storage.copy_if_absent(f"{tmp_path}/file", f"{tmp_path}/copy")
    storage.copy_if_absent(f"{tmp_path}/file", f"{tmp_path}/copy")
    assert storage.read_bytes(f"{tmp_path}/copy") == b"first"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "copy"}


def test_where_nothing_can_be_created_only_if_absent_a_run_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRenames:
        """A C library without renameat2."""

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: NoRenames())
    spec = AnnotateSpec(input="in", output=f"{tmp_path}/out", prompts=("ocr",), run_id="r")
    with pytest.raises(SpecError, match="neither hard links nor renames that replace nothing"):
        require_folder(spec)
    assert list(Path(spec.location).iterdir()) == []


def test_an_object_with_the_content_encoding_gzip_is_handed_out_unzipped(
    gcs: None, tmp_path: Path
) -> None:
    uri, content = f"gs://images/{tmp_path.name}/a.csv", b"image,question\na.jpg,why?\n" * 1000
    store_encoded(uri, gzip.compress(content))
    assert storage.read_bytes(uri) == content
    assert storage.read_bytes(uri, 6, 8) == content[6:14]
    assert storage.read_bytes(uri, len(content) + 5, 8) == b""
    with storage.open_binary(uri) as file:
        assert file.seek(-9, io.SEEK_END) == len(content) - 9
        assert file.read() == content[-9:]
    with pytest.raises(OSError, match="larger than 100 bytes"):
        storage.read_bytes(uri, limit=100)


def test_an_encoded_object_that_is_no_gzip_or_a_bomb_is_an_error(gcs: None, tmp_path: Path) -> None:
    uri = f"gs://images/{tmp_path.name}/b"
    store_encoded(uri, b"\x89PNG and so on")
    with pytest.raises(OSError, match="its content encoding is gzip"):
        storage.read_bytes(uri)
    store_encoded(uri, gzip.compress(bytes(10**8)))
    with pytest.raises(OSError, match="unpacks to more than"):
        storage.read_bytes(uri)


def store_encoded(uri: str, stored: bytes) -> None:
    """As `gsutil cp -Z` stores it."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    blob = Client().bucket(bucket).blob(name)
    blob.content_encoding = "gzip"
    blob.upload_from_string(stored)
