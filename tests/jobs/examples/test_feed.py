"""Feeds: a step's batch is decided by the seed and its number, and no bad row stops it."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paliflow.configs.finetune import FineTuneSpec
from paliflow.jobs.examples.feed import Fed, training_feed, validation_feed
from paliflow.jobs.examples.plan import ExamplePlan, sources_of, write_examples
from paliflow.jobs.media import reading
from paliflow.jobs.media.reading import read_content
from paliflow.jobs.runs.item import Item
from paliflow.model import BUNDLED_CHECKPOINT, Tokenizer
from paliflow.model.examples import encode_examples
from paliflow.tests.jobs.benchmark_files import Folder, draw, widgetcap

SIZE = 6
TOKENIZER = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))


class Tuning(NamedTuple):
    """A planned fine-tuning run."""

    spec: FineTuneSpec
    plan: ExamplePlan

    def train(self, first: int, total: int, index: int = 0, count: int = 1) -> list[Fed]:
        return list(
            training_feed(
                *(self.spec.location, self.plan, self.spec, TOKENIZER, SIZE),
                first_step=first,
                total_steps=total,
                process_index=index,
                process_count=count,
            )
        )

    def validate(self, name: str, index: int = 0, count: int = 1) -> list[Fed]:
        return list(
            validation_feed(
                *(self.spec.location, self.plan, name, self.spec, TOKENIZER, SIZE),
                process_index=index,
                process_count=count,
            )
        )


Tune = Callable[..., Tuning]


@pytest.fixture(scope="module")
def tune(tmp_path_factory: pytest.TempPathFactory) -> Tune:
    """Plans a run on lists of rows, one a source; images `0.png` to `15.png` differ."""
    images = tmp_path_factory.mktemp("images")
    for number in range(16):
        Image.new("RGB", (9, 7), (number * 15, 255 - number * 10, 7)).save(images / f"{number}.png")
    (images / "broken.png").write_bytes(b"not an image")

    def plan(*sources: list[dict[str, Any]], **fields: Any) -> Tuning:
        folder = tmp_path_factory.mktemp("run")
        weights = fields.pop("weights", [1.0] * len(sources))
        train = []
        for number, (rows, weight) in enumerate(zip(sources, weights, strict=True)):
            path = folder / f"{number}.jsonl"
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            train.append({"path": str(path), "images": str(images), "weight": weight})
        defaults = {
            "output": str(folder),
            "run_id": "tuned",
            "train": train,
            "validation": {"held_out": train[0]},
            "batch_size": 4,
            "max_tokens": 16,
        }
        spec = FineTuneSpec.parse(defaults | fields)
        return Tuning(spec, write_examples(spec.location, sources_of(spec), spec))

    return plan


def rows(count: int, source: int = 1, **fields: Any) -> list[dict[str, Any]]:
    """Rows whose answers, as numbers, are `source * 100 + row`."""
    return [
        {"image": f"{n % 16}.png", "prefix": "1", "suffix": f"{source * 100 + n}"} | fields
        for n in range(count)
    ]


def answers(batches: list[Fed]) -> list[str]:
    """The answers in the rows that count."""
    found = []
    for batch, _ in batches:
        for text, mask in zip(np.asarray(batch.text), np.asarray(batch.mask_loss), strict=True):
            if mask.any():
                found.append(TOKENIZER.decode(text[mask == 1][:-1].tolist()))
    return found


def joined(parts: list[list[Fed]]) -> list[list[Any]]:
    """The global batch of each step from the processes' parts."""
    return [
        [np.concatenate(field) for field in zip(*(fed.batch for fed in step), strict=True)]
        for step in zip(*parts, strict=True)
    ]


def same(ours: list[list[Any]], theirs: list[list[Any]]) -> bool:
    return len(ours) == len(theirs) and all(
        np.array_equal(a, b)
        for our, their in zip(ours, theirs, strict=True)
        for a, b in zip(our, their, strict=True)
    )


@settings(deadline=None, max_examples=10)
@given(
    sizes=st.lists(st.integers(8, 40), min_size=1, max_size=3),
    weights=st.lists(st.floats(0.2, 5), min_size=3, max_size=3),
    seed=st.integers(-(2**40), 2**40),
    batch_size=st.sampled_from([4, 8]),
    first=st.integers(0, 6),
)
def test_a_step_is_the_same_wherever_training_starts_and_on_however_many_processes(
    tune: Tune, sizes: list[int], weights: list[float], seed: int, batch_size: int, first: int
) -> None:
    sources = [rows(size, source=number + 1) for number, size in enumerate(sizes)]
    weights = weights[: len(sizes)]
    tuning = tune(*sources, weights=weights, seed=seed, batch_size=batch_size)
    whole = joined([tuning.train(0, 7)])
    for count in (1, 2, 4):
        parts = [tuning.train(first, 7, index, count) for index in range(count)]
        assert same(joined(parts), whole[first:])


def test_rows_are_what_the_model_is_taught(tune: Tune) -> None:
    tuning = tune(rows(8))
    (fed,) = tuning.train(0, 1)
    said = answers([fed])
    expected = encode_examples(TOKENIZER, [("1", text) for text in said], 16)
    assert same([list(fed.batch[1:])], [list(expected)])
    for image, text in zip(np.asarray(fed.batch.images), said, strict=True):
        number = int(text) - 100
        color = np.array([number * 15, 255 - number * 10, 7])
        np.testing.assert_allclose(image, np.broadcast_to(color, (6, 6, 3)), atol=1)
    assert [np.asarray(field).dtype for field in fed.batch] == [np.uint8] + [np.int32] * 3


def test_an_epoch_draws_each_example_once_and_the_next_in_another_order(tune: Tune) -> None:
    said = answers(tune(rows(13)).train(0, 13))
    passes = [said[start : start + 13] for start in range(0, 52, 13)]
    assert [sorted(each) for each in passes] == [[f"{100 + n}" for n in range(13)]] * 4
    assert len({tuple(each) for each in passes}) == 4
    assert answers(tune(rows(13), seed=1).train(0, 3)) != said[:12]


def test_sources_are_drawn_in_proportion_to_their_weights(tune: Tune) -> None:
    tuning = tune(rows(3, 1), rows(90, 2), rows(10, 3), weights=[1, 2, 0.5])
    said = answers(tuning.train(0, 35))
    assert Counter(text[0] for text in said) == {"1": 40, "2": 80, "3": 20}
    for start in range(0, 140, 14):  # at any time, not only in the end
        assert Counter(text[0] for text in said[start : start + 14]).most_common(1)[0][0] == "2"
    small = [text for text in said if text[0] == "1"]
    for start in range(0, 39, 3):
        assert sorted(small[start : start + 3]) == ["100", "101", "102"]


def test_several_answers_take_turns(tune: Tune) -> None:
    several = [row | {"suffix": [f"{n}0", f"{n}1", f"{n}2"]} for n, row in enumerate(rows(8), 1)]
    said = answers(tune(several).train(0, 12))
    for start in (0, 24):
        count = Counter(said[start : start + 24])
        assert set(count.values()) == {1}
        assert len(count) == 24
    assert len({text[-1] for text in said[:8]}) > 1  # not all start with their first


def test_training_starts_anywhere_at_once(tune: Tune) -> None:
    tuning = tune(rows(13))
    started = time.monotonic()
    assert len(answers(tuning.train(10**9, 10**9 + 1))) == 4
    assert time.monotonic() - started < 5


def test_rows_that_cannot_be_used_do_not_count_and_say_why(tune: Tune) -> None:
    bad: list[dict[str, Any]] = [
        {"image": "nowhere.png"},
        {"image": "broken.png"},
        {"image": ["0.png", "1.png"]},
        {"suffix": "1 2 3 4 5 6 7 8 9" * 9},
    ]
    tuning = tune([*(row | own for row, own in zip(rows(4), bad, strict=True)), *rows(8)[4:]])
    fed = tuning.train(0, 2)
    assert sorted(reason for each in fed for reason in each.failures) == [
        "2 images, not images_per_example=1",
        "not an image",
        "not found",
        "prefix and suffix have more than max_tokens=16 tokens",
    ]
    assert sorted(answers(fed)) == ["104", "105", "106", "107"]
    for batch, failures in fed:
        counts = np.asarray(batch.mask_loss).any(1)
        assert (~counts).sum() == len(failures)
        assert not np.asarray(batch.images)[~counts].any()
        assert (np.asarray(batch.text)[~counts] == TOKENIZER.pad_id).all()


def test_an_empty_suffix_teaches_the_end_alone(tune: Tune) -> None:
    tuning = tune([row | {"prefix": "detect 1", "suffix": ""} for row in rows(4)])
    for fed in (*tuning.train(0, 1), *tuning.validate("held_out")):
        assert not fed.failures
        text, learnt = np.asarray(fed.batch.text), np.asarray(fed.batch.mask_loss)
        assert (text[learnt == 1] == TOKENIZER.eos_id).all()
        assert (learnt.sum(1) == 1).all()


def test_an_example_that_is_too_long_is_cut_on_the_right_where_asked(tune: Tune) -> None:
    long = [row | {"suffix": "1 2 3 4 5 6 7 8 9" * 9} for row in rows(4)]
    long[3]["prefix"] = "1 2 3 4 5 6 7 8 9" * 9
    (fed,) = tune(long, too_long="truncate").train(0, 1)
    assert fed.failures == ("prefix and suffix have more than max_tokens=16 tokens",)
    (whole,) = encode_examples(TOKENIZER, [("1", long[0]["suffix"])], 200).text
    text, learnt = np.asarray(fed.batch.text), np.asarray(fed.batch.mask_loss)
    counts = learnt.any(1)
    assert counts.sum() == 3
    assert (text[counts] == whole[:16]).all()
    assert learnt[counts][:, -1].all()
    assert TOKENIZER.eos_id not in text[counts]


def test_an_image_that_hangs_holds_up_only_its_row(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(item: Item, https_hosts: tuple[str, ...]) -> bytes:
        if item.uri.endswith("/2.png"):
            time.sleep(3)
        return read_content(item, https_hosts)

    monkeypatch.setattr(reading, "read_content", read)
    fed = tune(rows(8), read_timeout=0.5).train(0, 2)
    assert [reason for each in fed for reason in each.failures] == [
        "not read and decoded within 0.5 s"
    ]
    assert len(answers(fed)) == 7


def test_what_is_drawn_on_an_example_is_learnt_with_it(tmp_path: Path) -> None:
    counts = draw(tmp_path / "pictures")
    widgetcap(Folder(tmp_path / "pictures", tmp_path / "data"), counts)
    fields = {"output": str(tmp_path / "out"), "run_id": "r", "checkpoint": str(BUNDLED_CHECKPOINT)}
    fields |= {"benchmark": "widgetcap", "data": str(tmp_path / "data")}
    own = [{"path": str(tmp_path / "data"), "benchmark": "widgetcap", "split": "test"}]
    spec = FineTuneSpec.parse({**fields, "train": own, "batch_size": 6, "max_error_fraction": 1})
    plan = write_examples(spec.location, sources_of(spec), spec)
    feed = training_feed(
        *(spec.location, plan, spec, TOKENIZER, 40),
        first_step=0,
        total_steps=1,
        process_index=0,
        process_count=1,
    )
    (fed,) = feed
    assert not fed.failures
    red = (np.asarray(fed.batch.images) == [255, 0, 0]).all(axis=-1)
    assert red.any(axis=(1, 2)).all()  # a widget's outline on each


def test_examples_of_several_images_keep_their_order(tune: Tune) -> None:
    pairs = [row | {"image": [f"{n}.png", f"{n + 8}.png"]} for n, row in enumerate(rows(8))]
    (fed,) = tune(pairs, images_per_example=2).train(0, 1)
    images = np.asarray(fed.batch.images)
    assert images.shape == (4, 2, 6, 6, 3)
    for both, text in zip(images, answers([fed]), strict=True):
        reds = [(int(text) - 100 + shift) * 15 for shift in (0, 8)]
        np.testing.assert_allclose(both[:, 0, 0, 0], reds, atol=1)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_validation_goes_through_a_set_in_order_and_fills_its_last_batch(
    tune: Tune, count: int
) -> None:
    tuning = tune([row | {"suffix": [row["suffix"], "7"]} for row in rows(10)])
    parts = [tuning.validate("held_out", index, count) for index in range(count)]
    steps = joined(parts)
    assert [len(step[0]) for step in steps] == [4, 4, 4]
    assert same(steps, joined([tuning.validate("held_out")]))
    assert [bool(row.any()) for row in steps[-1][3]] == [True, True, False, False]
    assert answers(tuning.validate("held_out")) == [f"{100 + n}" for n in range(10)]
    assert not any(fed.failures for part in parts for fed in part)


def test_a_feed_that_is_left_early_ends_its_threads(tune: Tune) -> None:
    tuning = tune(rows(13))
    before = set(threading.enumerate())
    batches = training_feed(
        *(tuning.spec.location, tuning.plan, tuning.spec, TOKENIZER, SIZE),
        first_step=0,
        total_steps=10**9,
        process_index=0,
        process_count=1,
    )
    assert len(list(islice(batches, 2))) == 2
    batches.close()  # type: ignore[attr-defined] # a generator
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert set(threading.enumerate()) <= before


def test_processes_that_do_not_divide_a_batch_are_refused(tune: Tune) -> None:
    with pytest.raises(ValueError, match="batch_size=4 does not divide by 3 processes"):
        tune(rows(4)).train(0, 1, 0, 3)


def test_planning_does_not_import_grain() -> None:
    code = "import sys, paliflow.jobs.examples.plan; assert 'grain' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
