"""The scoreboard puts measured figures beside published ones and says what cannot be compared."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paliflow.configs import EvaluateSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.evaluate.scoreboard import (
    Entry,
    arranged,
    as_html,
    as_markdown,
    cell,
    entries_of,
    gained,
    read_scoreboard,
    said,
)
from paliflow.jobs.runs.outputs import write_manifest
from paliflow.metrics import paired_bootstrap_interval


def summary(folder: Path, name: str = "gqa", **fields: Any) -> EvaluateSummary:
    """An evaluation of GQA that may be compared with the card, unless fields say otherwise."""
    own = {
        "benchmark": "gqa", "split": "testdev_balanced", "rows": 12578, "of": 12578, "broken": 0,
        "answered": 12578, "scored": 12578, "intervals": {"accuracy": [0.65, 0.67]},
    }  # fmt: skip
    now = datetime.now(UTC)
    defaults = {
        "run_id": name, "location": str(folder / f"run_id={name}"), "spec": {}, "started": now,
        "finished": now, "seconds": 1.0, "versions": {}, "checkpoint": "/models/a|b.npz",
        "checkpoint_sha256": "a", "examples": 1, "errors": 0, "examples_sha256": "e",
        "figures": {"gqa/accuracy": 0.66}, "image_size": 224,
    }  # fmt: skip
    top = {key: value for key, value in fields.items() if key in defaults}
    rest = {key: value for key, value in fields.items() if key not in defaults}
    return EvaluateSummary.parse({**defaults, **top, "sets": {"gqa": {**own, **rest}}})


def entry(folder: Path, **fields: Any) -> Entry:
    (found,) = entries_of(summary(folder, **fields))
    return found


@pytest.mark.parametrize(
    ("fields", "state", "why"),
    [
        ({}, "equal", ""),
        ({"intervals": {"accuracy": [0.66, 0.67]}}, "different", ""),
        ({"image_size": 448}, "different", ""),  # 67.03 is published of 448 pixels
        ({"image_size": 56}, "incomparable", "nothing is published of this"),
        ({"split": "val"}, "incomparable", "of val, published of testdev_balanced"),
        ({"scored": 500}, "incomparable", "of 500 rows, published of 12,578"),
        ({"answered": 12000}, "incomparable", "coverage 95.4%"),
        ({"figures": {}, "note": "too few"}, "incomparable", "too few"),
    ],
)
def test_a_published_figure_is_compared_only_with_one_of_the_same_rows(
    tmp_path: Path, fields: dict[str, Any], state: str, why: str
) -> None:
    found = entry(tmp_path, **fields)
    assert (found.state, found.why) == (state, why)


def test_figures_are_in_the_published_unit_beside_their_interval(tmp_path: Path) -> None:
    assert said(entry(tmp_path)) == "66.00 [65.00, 67.00] +0.39"
    assert said(entry(tmp_path, figures={}, note="too few")) == "no figure: too few"
    assert said(None) == "-"


def test_checkpoints_of_one_name_are_two_columns_by_the_folders_that_differ(tmp_path: Path) -> None:
    runs = [
        summary(tmp_path, checkpoint=f"gs://b/run_id={week}/model/model.npz", figures=figures)
        for week, figures in (("w1", {"gqa/accuracy": 0.5}), ("w2", {"gqa/accuracy": 0.6}))
    ]
    board = arranged([entry for run in runs for entry in entries_of(run)])
    assert board.checkpoints == tuple(f"run_id={w}/model/model.npz at 224" for w in ("w1", "w2"))
    (accuracy,) = (line for line in board.lines if line.figure == "accuracy")
    assert [own and own.measured for own in accuracy.entries] == [50, 60]


def test_checkpoints_stand_side_by_side_and_their_names_are_no_markup(tmp_path: Path) -> None:
    other = summary(tmp_path, checkpoint="/models/<b>.npz", figures={"gqa/accuracy": 0.6})
    board = arranged([*entries_of(summary(tmp_path)), *entries_of(other)])
    assert board.checkpoints == ("a|b.npz at 224", "<b>.npz at 224")
    head, _, line = as_markdown(board).splitlines()
    assert head == r"| benchmark | figure | published | a\|b.npz at 224 | &lt;b>.npz at 224 |"
    assert line.startswith("| gqa | accuracy | pt-224 65.61, pt-448 67.03 | 66.00 [65.00, 67.00]")
    page = as_html(board)
    assert "&lt;b&gt;.npz" in page
    assert "<b>.npz" not in page
    assert page.count('class="number equal"') == 2


def answered(folder: Path, name: str, right: list[float], reference: str = "yes") -> None:
    """An evaluation and its predictions: two questions about each image.

    Of the first 15 images the digests are not known; of the others each question has a copy.
    """
    location = folder / f"run_id={name}"
    location.mkdir()
    write_manifest(
        summary(folder, name, checkpoint=f"/models/{name}.npz", figures={"gqa/accuracy": 0.5})
    )
    score_type = pa.struct([("numerator", pa.float64()), ("denominator", pa.float64())])
    rows = [
        {
            **{"set": "gqa", "id": str(n), "prefix": "q", "references": [reference]},
            **{"image": str(n if n >= 30 else n // 2), "details": "{}"},
            "image_sha256": str(n // 2) if n >= 30 else None,
            "accuracy": {"numerator": value, "denominator": 1.0},
        }
        for n, value in enumerate(right)
    ]
    table = pa.Table.from_pylist(rows)
    place = table.column_names.index("accuracy")
    table = table.set_column(place, "accuracy", table["accuracy"].cast(score_type))
    pq.write_table(table, location / "predictions.parquet")


def test_further_checkpoints_are_compared_with_the_first_on_the_same_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    first = rng.integers(0, 2, 60).astype(float).tolist()
    better = [max(value, float(n % 3 == 0)) for n, value in enumerate(first)]
    for name, right in (("a", first), ("b", better)):
        answered(tmp_path, name, right)
    answered(tmp_path, "c", better, reference="no")  # of other questions
    board = read_scoreboard([str(tmp_path)])
    (line,) = (line for line in board.lines if line.figure == "accuracy")
    one, two, three = line.entries
    assert one
    assert two
    assert three
    assert one.gain is None
    assert three.gain is None
    sums = [np.array(right).reshape(-1, 2).sum(axis=1) for right in (better, first)]
    low, high = paired_bootstrap_interval((sums[0], np.full(30, 2)), (sums[1], np.full(30, 2)))
    assert two.gain
    assert two.gain == pytest.approx((0, 100 * low, 100 * high))
    assert 0 < two.gain.low < 100 * np.mean(np.subtract(better, first)) < two.gain.high
    shown = cell(two)
    assert shown.startswith(said(two))
    assert shown.endswith(f"{gained(two)}")
    assert gained(two) in as_html(board)
    assert gained(two) in as_markdown(board)
    assert (gained(one), gained(three)) == ("", "")
    (tmp_path / "run_id=b" / "predictions.parquet").unlink()
    (line, *_) = read_scoreboard([str(tmp_path)]).lines
    assert all(own and own.gain is None for own in line.entries)


def test_all_runs_of_an_output_are_on_the_scoreboard(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"run_id={name}").mkdir()
        write_manifest(summary(tmp_path, name, checkpoint=f"/models/{name}.npz"))
    board = read_scoreboard([str(tmp_path)])
    assert board.checkpoints == ("one.npz at 224", "two.npz at 224")
    assert read_scoreboard([str(tmp_path / "run_id=two")]).checkpoints == ("two.npz at 224",)
    with pytest.raises(SpecError, match="no finished evaluation of a benchmark there"):
        read_scoreboard([str(tmp_path / "run_id=two" / "nothing")])
