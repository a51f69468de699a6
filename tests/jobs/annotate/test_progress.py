"""What an actor knows of its shards: rows under their items, in order, and how many are done."""

from paliflow.jobs.annotate.progress import Progress, ShardRows
from paliflow.jobs.fleet.scheduler import Heartbeat
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item


def test_rows_come_under_their_items_and_an_item_is_done_when_the_next_one_begins() -> None:
    items = [Item("a"), Item("a"), Item("b")]  # equal items are told apart
    rows = ShardRows(items)
    assert rows.add([(Input(items[0]), [{"n": 0}]), (Input(items[0]), [{"n": 1}])]) == 0
    assert rows.add([(Input(items[1]), [{"n": 2}]), (Input(items[2]), [{"n": 3}])]) == 2
    assert rows.of_items == [[{"n": 0}, {"n": 1}], [{"n": 2}], [{"n": 3}]]
    assert rows.left == 1


def test_progress_counts_items_and_signs_of_life_and_tells_of_the_first_batch_once() -> None:
    progress = Progress()
    progress.loaded(started=0.0)
    progress.move()
    progress.batch_done(2)
    first = progress.notes
    progress.batch_done(1)
    progress.answered(1)
    assert progress.heartbeat() == Heartbeat(4, 3)
    assert progress.notes == first
    assert [name for name, _ in first] == ["first batch"]
