"""Reading ahead: in order, begun early, and nobody waits for who hangs."""

import threading
import time
from contextlib import closing

from paliflow.jobs.plan import Item
from paliflow.jobs.readahead import ReadAhead
from paliflow.jobs.reading import Input


def test_inputs_come_in_order_and_are_begun_before_they_are_asked_for() -> None:
    begun: list[str] = []
    items = [Item(str(n)) for n in range(20)]

    def read(item: Item) -> Input:
        begun.append(item.uri)
        time.sleep(0.01 if int(item.uri) % 3 else 0.03)
        return Input(item, sha256=item.uri)

    with closing(ReadAhead(read, items, 6, 10.0)) as ahead:
        time.sleep(0.2)
        assert sorted(begun) == [str(n) for n in range(6)]
        assert list(ahead) == [Input(item, sha256=item.uri) for item in items]
    assert len(begun) == 20


def test_inputs_that_hang_become_errors_and_hold_up_no_other() -> None:
    release = threading.Event()
    items = [Item(str(n)) for n in range(40)]

    def read(item: Item) -> Input:
        if int(item.uri) < 20:  # more than there are threads
            release.wait(30)
        return Input(item, sha256=item.uri)

    started = time.monotonic()
    with closing(ReadAhead(read, items, 32, 0.05)) as ahead:
        inputs = list(ahead)
    release.set()
    assert time.monotonic() - started < 10
    assert [i.item for i in inputs] == items
    assert {i.error for i in inputs[:20]} == {"not read and decoded within 0.05 s"}
    assert [i.sha256 for i in inputs[20:]] == [str(n) for n in range(20, 40)]
