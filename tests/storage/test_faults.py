"""Storage on gs:// when requests fail: what may pass is retried, what may not is said at once."""

import io
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from paliflow import storage
from paliflow.storage import gs
from paliflow.tests.gcs import FAULTS, Faults, at_random, serve

CONTENT = bytes(range(256)) * 500
PASSING = [fault for fault in FAULTS if fault not in ("403", "hang")]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Faults]]:
    """A server of its own, and what befalls the requests to it."""
    faults = Faults()
    with serve(faults) as url:
        yield url, faults


@pytest.fixture
def faults(server: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """A bucket `b` with an object `folder/old`, and retries that hardly wait."""
    url, faults = server
    faults.inject([])
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    sleeps = "google.api_core.retry.retry_unary.exponential_sleep_generator"
    monkeypatch.setattr(sleeps, lambda *_, **__: itertools.repeat(0.01))
    gs._client.cache_clear()
    client = gs._client()
    client.bucket("b").exists() or client.create_bucket("b")
    storage.overwrite("gs://b/folder/old", io.BytesIO(CONTENT))
    storage.delete("gs://b/folder/new")
    yield faults
    faults.inject([])
    gs._client.cache_clear()


def read_open() -> bytes:
    with storage.open_binary("gs://b/folder/old") as file:
        file.seek(1000)
        return file.read(3000)


def write_and_read(write: Callable[[str, io.BytesIO], object], content: bytes) -> object:
    result = write("gs://b/folder/new", io.BytesIO(content))
    return result, storage.read_bytes("gs://b/folder/new") == content


def replace(content: bytes) -> object:
    uri = "gs://b/folder/old"
    won = storage.replace(uri, io.BytesIO(content), storage.version(uri))
    return won, storage.read_bytes(uri) == content


def delete() -> bool:
    storage.delete("gs://b/folder/old")
    return storage.is_file("gs://b/folder/old")


LARGE = CONTENT * 70  # above what one request uploads
VERBS: dict[str, tuple[Callable[[], object], object]] = {
    "read": (lambda: storage.read_bytes("gs://b/folder/old"), CONTENT),
    "read a range": (lambda: storage.read_bytes("gs://b/folder/old", 7, 900), CONTENT[7:907]),
    "open": (read_open, CONTENT[1000:4000]),
    "is_file": (lambda: storage.is_file("gs://b/folder/old"), True),
    "version": (lambda: storage.version("gs://b/folder/old") is None, False),
    "list": (lambda: [e.uri for e in storage.list_files("gs://b")], ["gs://b/folder/old"]),
    "match": (lambda: [e.uri for e in storage.match("gs://b/*/o*")], ["gs://b/folder/old"]),
    "commit": (lambda: write_and_read(storage.commit_if_absent, CONTENT), (True, True)),
    "commit much": (lambda: write_and_read(storage.commit_if_absent, LARGE), (True, True)),
    "overwrite": (lambda: write_and_read(storage.overwrite, CONTENT), (None, True)),
    "overwrite much": (lambda: write_and_read(storage.overwrite, LARGE), (None, True)),
    "replace": (lambda: replace(b"new"), (True, True)),
    "delete": (delete, False),
}


def _as_another(verb: str, fault: str) -> bool:
    """Whether a test waits for a slow server, or is told to wait by a busy one, as another is; or
    its verb asks as another does."""
    waits = fault in ("slow", "503") and verb not in ("read", "commit")
    return waits or verb in ("read a range", "match", "version", "overwrite much")


@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        pytest.param(verb, fault, marks=[pytest.mark.slow] if _as_another(verb, fault) else [])
        for verb in VERBS
        for fault in PASSING
    ],
)
def test_every_verb_survives_every_passing_fault(faults: Faults, verb: str, fault: str) -> None:
    act, wanted = VERBS[verb]
    for before in range(2):  # the first request, or the second, which resumes or asks anew
        faults.inject([*[None] * before, fault, fault])
        assert act() == wanted
        storage.delete("gs://b/folder/new")
        storage.overwrite("gs://b/folder/old", io.BytesIO(CONTENT))


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_forbidden_is_said_at_once(faults: Faults, verb: str) -> None:
    faults.inject(["403"])
    with pytest.raises(PermissionError, match="403 injected") as caught:
        VERBS[verb][0]()
    assert caught.value.strerror == "403 injected"
    assert faults.next() is None  # nothing was tried twice


@pytest.mark.parametrize("fault", ["lost", "cut"])
def test_a_commit_whose_answer_was_lost_knows_that_it_won(faults: Faults, fault: str) -> None:
    faults.inject([fault])
    assert storage.commit_if_absent("gs://b/folder/new", io.BytesIO(b"mine"))
    faults.inject([fault])
    assert not storage.commit_if_absent("gs://b/folder/new", io.BytesIO(b"mine"))


@pytest.mark.parametrize("fault", ["lost", "cut"])
def test_a_replacement_whose_answer_was_lost_knows_that_it_won(faults: Faults, fault: str) -> None:
    uri = "gs://b/folder/old"
    seen = storage.version(uri)
    faults.inject([fault])
    assert storage.replace(uri, io.BytesIO(b"mine"), seen)
    faults.inject([fault])
    assert not storage.replace(uri, io.BytesIO(b"mine"), seen)


def test_in_a_storm_no_replacement_is_lost(faults: Faults) -> None:
    shares = {"429": 0.1, "503": 0.1, "reset": 0.1, "cut": 0.1, "lost": 0.1}
    uri = "gs://b/folder/new"
    storage.commit_if_absent(uri, io.BytesIO(b""))
    faults.inject(at_random(shares, seed=6))

    def add(name: bytes) -> None:
        while True:
            seen, content = storage.version(uri), storage.read_bytes(uri)
            if name in content:
                return  # its own, replaced before it knew; see `storage.replace`
            if storage.replace(uri, io.BytesIO(content + name), seen):
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, [b"a", b"b", b"c", b"d"]))
    faults.inject([])
    assert sorted(storage.read_bytes(uri)) == sorted(b"abcd")


def test_of_many_writers_in_a_storm_exactly_one_wins(faults: Faults) -> None:
    shares = {"429": 0.1, "503": 0.1, "reset": 0.1, "cut": 0.1, "lost": 0.1}
    faults.inject(at_random(shares, seed=5))
    wins: list[int] = []

    def write(number: int) -> None:
        if storage.commit_if_absent("gs://b/folder/new", io.BytesIO(bytes([number]) * 1000)):
            wins.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    faults.inject([])
    assert [storage.read_bytes("gs://b/folder/new")[0]] == wins


def test_a_server_that_falls_silent_holds_up_nobody(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gs, "_TIMEOUT_S", (1.0, 0.3))
    faults.inject(["hang"])
    start = time.monotonic()
    assert storage.read_bytes("gs://b/folder/old") == CONTENT
    assert time.monotonic() - start < 5


def test_errors_tell_no_secrets_of_requests(faults: Faults) -> None:
    faults.inject([None, "403"])  # the session of an upload is open, and its address a secret
    with pytest.raises(PermissionError) as caught:
        storage.overwrite("gs://b/folder/new", io.BytesIO(LARGE))
    assert str(caught.value) == "[Errno 13] 403 injected: 'gs://b/folder/new'"


def test_the_server_runs_as_a_process_with_seeded_faults() -> None:
    command = [sys.executable, "-m", "paliflow.tests.gcs", "--bucket", "b"]
    command += ["--faults", "503=0.3,lost=0.2", "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.terminate()
    draws = [list(itertools.islice(at_random({"503": 0.3}, 7), 50)) for _ in range(2)]
    assert draws[0] == draws[1]
    assert 5 < draws[0].count("503") < 25
