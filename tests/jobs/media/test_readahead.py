"""Reading ahead: in order, begun early, and nobody waits for who hangs."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from paliflow.jobs.media import readahead
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item


def test_inputs_come_in_order_and_are_begun_before_they_are_asked_for() -> None:
    begun: list[str] = []
    items = [Item(str(n)) for n in range(20)]

    def read(item: Item) -> list[Input | None]:
        begun.append(item.uri)
        time.sleep(0.01 if int(item.uri) % 3 else 0.03)
        return [Input(item, sha256=item.uri)]

    with closing(ReadAhead(read, items, 6, 10.0)) as ahead:
        time.sleep(0.2)
        assert sorted(begun) == [str(n) for n in range(6)]
        assert list(ahead) == [Input(item, sha256=item.uri) for item in items]
    assert len(begun) == 20


def test_inputs_that_hang_become_errors_and_hold_up_no_other() -> None:
    release = threading.Event()
    items = [Item(str(n)) for n in range(40)]

    def read(item: Item) -> list[Input | None]:
        if int(item.uri) < 20:  # more than there are threads
            release.wait(30)
        return [Input(item, sha256=item.uri)]

    started = time.monotonic()
    with closing(ReadAhead(read, items, 32, 0.05)) as ahead:
        inputs = list(ahead)
    release.set()
    assert time.monotonic() - started < 10
    assert [i.item for i in inputs] == items
    assert {i.error for i in inputs[:20]} == {"not read and decoded within 0.05 s"}
    assert [i.sha256 for i in inputs[20:]] == [str(n) for n in range(20, 40)]


def test_an_item_gives_many_inputs_of_which_few_are_read_ahead() -> None:
    given: list[int] = []

    def read(item: Item) -> Iterator[Input | None]:
        for number in range(50):
            given.append(number)
            yield Input(item, sha256=str(number))

    with closing(ReadAhead(read, [Item("a"), Item("b")], 8, 10.0, readers=2)) as ahead:
        time.sleep(0.2)
        assert len(given) == 2 * 5  # four each wait, and one is held by whoever read it
        inputs = list(ahead)
    assert [(i.item.uri, i.sha256) for i in inputs] == [
        (u, str(n)) for u in "ab" for n in range(50)
    ]


def test_who_takes_long_and_shows_signs_of_life_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readahead, "_SIGN_S", 0.01)

    def read(item: Item) -> Iterator[Input | None]:
        for _ in range(20):
            time.sleep(0.05)
            yield None
        yield Input(item)

    with closing(ReadAhead(read, [Item("slow")], 8, 0.5)) as ahead:
        assert list(ahead) == [Input(Item("slow"))]


def test_what_a_reader_raises_is_raised_where_it_is_waited_for() -> None:
    def read(item: Item) -> Iterator[Input | None]:
        yield Input(item)
        raise ZeroDivisionError

    with closing(ReadAhead(read, [Item("a")], 8, 10.0)) as ahead:
        inputs = iter(ahead)
        assert next(inputs) == Input(Item("a"))
        with pytest.raises(ZeroDivisionError):
            next(inputs)


def test_who_shows_signs_of_life_never_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readahead, "_SIGN_S", 0.0)
    free = threading.Event()

    def read(item: Item) -> Iterator[Input | None]:
        if item.uri == "1":
            yield from [None] * 100  # more than there is room for, before it lets the first go on
            free.set()
        assert free.wait(20)
        yield Input(item)

    with closing(ReadAhead(read, [Item("0"), Item("1")], 2, 60)) as ahead:
        assert [found.item.uri for found in ahead] == ["0", "1"]
