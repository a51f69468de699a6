"""The gate moves an alias for what is surely better, and for nothing else."""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from paliflow.configs import PromoteSpec, PromoteSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.confidence.calibration import (
    Calibration,
    read_calibration,
    write_calibration,
)
from paliflow.jobs.evaluate import promotion as job
from paliflow.jobs.registry import aliases as registry
from paliflow.jobs.registry.aliases import Model, Weights
from paliflow.model import BUNDLED_CHECKPOINT, checkpoint_sha256, local_copy
from paliflow.tests.jobs.evaluations import EXAMPLES, evaluated, right


@pytest.fixture
def incumbent(tmp_path: Path) -> str:
    """An evaluation of what production points to."""
    where = str(tmp_path / "registry")
    registry.register(where, "digits", Weights("/models/old.npz", "old"))
    registry.move(where, "digits", "production", 1, "the first")
    return evaluated(tmp_path, "old", right(0.6), right(0.9))


def spec_of(tmp_path: Path, **fields: Any) -> PromoteSpec:
    defaults = {"registry": str(tmp_path / "registry"), "name": "digits", "resamples": 2000}
    return PromoteSpec.parse(defaults | fields)


def promote(tmp_path: Path, candidate: str, incumbent: str, **fields: Any) -> PromoteSummary:
    decides = {"candidate": candidate, "incumbent": incumbent, "metric": "held_out/exact_match"}
    return job.promote(spec_of(tmp_path, **decides | fields), Console())


def model(tmp_path: Path) -> Model:
    return registry.read(str(tmp_path / "registry")).models["digits"]


def test_what_is_better_is_promoted(tmp_path: Path, incumbent: str) -> None:
    candidate = evaluated(tmp_path, "new", right(0.7), right(0.9))
    guards = {"old_domain/anls": 0.01}
    summary = promote(tmp_path, candidate, incumbent, min_gain=0.05, guards=guards)
    assert summary.promoted
    assert (summary.version, summary.checkpoint) == (2, "/models/new.npz")
    deciding, guard = summary.comparisons
    assert (deciding.candidate, deciding.incumbent) == (0.7, 0.6)
    assert deciding.low == pytest.approx(0.1 - 1.645 * (0.1 * 0.9 / EXAMPLES) ** 0.5, abs=0.003)
    assert (guard.low, guard.wanted, guard.examples) == (0, -0.01, EXAMPLES)
    assert summary.reason.startswith("promoted: held_out/exact_match went from 0.6000 to 0.7000, ")
    now = model(tmp_path)
    assert now.aliases == {"production": 2}
    assert now.history[-1].why == summary.reason
    assert now.versions[-1].source == candidate
    assert now.versions[-1].figures["old_domain/anls"] == guard.candidate


def test_what_is_promoted_has_the_calibration_of_its_evaluation(
    tmp_path: Path, incumbent: str
) -> None:
    candidate = evaluated(tmp_path, "new", right(0.7), right(0.9))
    calibration = Calibration(
        checkpoint_sha256="new", decoding={}, evaluation=candidate, created=datetime.now(UTC),
        level=0.95, groups=(),
    )  # fmt: skip
    write_calibration(f"{candidate}/calibration.json", calibration)
    assert promote(tmp_path, candidate, incumbent).promoted
    old, new = model(tmp_path).versions
    assert old.calibration is None
    assert new.calibration
    assert new.calibration.startswith(str(tmp_path / "registry"))
    assert read_calibration(new.calibration) == calibration


def test_a_figure_that_is_better_lower_gains_by_its_fall(tmp_path: Path, incumbent: str) -> None:
    metric, decides = "perplexity", {"metric": "held_out/perplexity"}
    old = evaluated(tmp_path, "lower", right(0.6), right(0.9), metric, checkpoint_sha256="old")
    worse = evaluated(tmp_path, "worse", right(0.7), right(0.9), metric)
    assert not promote(tmp_path, worse, old, **decides).promoted
    better = evaluated(tmp_path, "better", right(0.5), right(0.9), metric)
    summary = promote(tmp_path, better, old, **decides)
    assert summary.promoted
    assert 0 < summary.comparisons[0].low < 0.1


def test_to_repeat_it_changes_nothing(tmp_path: Path, incumbent: str) -> None:
    candidate = evaluated(tmp_path, "new", right(0.7), right(0.9))
    summary, before = promote(tmp_path, candidate, incumbent), model(tmp_path)
    assert promote(tmp_path, candidate, incumbent) == summary
    assert model(tmp_path) == before


@pytest.mark.parametrize(
    ("held_out", "old_domain", "reason"),
    [
        (right(0.6), right(0.9), r"kept: .* gain of \+0.0000 or more .*; the rule wants one above"),
        (right(0.61), right(0.9), "the rule wants at least"),  # better, but by too little
        (right(0.61, seed=1), right(0.9), r"gain of -0\.04\d+ or more"),  # perhaps by chance
        (right(0.5), right(0.9), "kept: held_out/exact_match went from"),
        (right(0.9), right(0.8), r"but the guard old_domain/anls went from 0.9000 to 0.8000, -0.1"),
    ],
)
def test_what_is_not_surely_better_is_kept_out_with_the_reason(
    tmp_path: Path, incumbent: str, held_out: list[float], old_domain: list[float], reason: str
) -> None:
    candidate = evaluated(tmp_path, "new", held_out, old_domain)
    wanted = 0.02 if reason.endswith("at least") else 0.0
    guards = {"old_domain/anls": 0.02}
    summary = promote(tmp_path, candidate, incumbent, min_gain=wanted, guards=guards)
    assert not summary.promoted
    assert re.search(reason, summary.reason), summary.reason
    assert (summary.version, summary.checkpoint) == (1, "/models/old.npz")
    assert len(model(tmp_path).versions) == 1


def test_one_example_more_is_no_proof(tmp_path: Path, incumbent: str) -> None:
    scores = right(0.6)
    scores[scores.index(0)] = 1.0
    candidate = evaluated(tmp_path, "new", scores, right(0.9))
    assert not promote(tmp_path, candidate, incumbent).promoted


def test_the_same_weights_are_not_promoted_over_themselves(tmp_path: Path, incumbent: str) -> None:
    summary = promote(tmp_path, incumbent, incumbent)
    assert not summary.promoted
    assert summary.version == 1


def test_evaluations_of_other_examples_are_not_compared(tmp_path: Path, incumbent: str) -> None:
    other = evaluated(tmp_path, "new", right(0.9), right(0.9), examples_sha256="f")
    with pytest.raises(SpecError, match="are of different examples"):
        promote(tmp_path, other, incumbent)


def test_images_that_changed_in_between_are_not_compared(tmp_path: Path, incumbent: str) -> None:
    candidate = evaluated(tmp_path, "new", right(0.9), right(0.9))
    file = f"{candidate}/predictions.parquet"
    rows = pq.read_table(file)
    images = rows["image_sha256"].to_pylist()
    place = rows.schema.get_field_index("image_sha256")
    unread = pa.array([None, *images[1:]], pa.string())
    pq.write_table(rows.set_column(place, "image_sha256", unread), file)
    assert promote(tmp_path, candidate, incumbent).promoted
    registry.rollback(str(tmp_path / "registry"), "digits", "production", "once more")
    changed = pa.array(["other", *images[1:]], pa.string())
    pq.write_table(rows.set_column(place, "image_sha256", changed), file)
    with pytest.raises(SpecError, match="1 images have changed between"):
        promote(tmp_path, candidate, incumbent)


def test_copies_of_an_image_beside_its_questions_are_drawn_together(tmp_path: Path) -> None:
    """As TensorFlow Datasets keep them: 20 questions about each image, each with a copy of it."""
    where = str(tmp_path / "registry")
    registry.register(where, "digits", Weights("/models/old.npz", "old"))
    registry.move(where, "digits", "production", 1, "the first")
    runs = {}
    for name, images, unread in (("old", 12, 0), ("new", 14, 1)):
        scores = [float(row // 20 < images) for row in range(EXAMPLES)]
        runs[name] = evaluated(tmp_path, name, scores, right(0.9))
        file = f"{runs[name]}/predictions.parquet"
        rows = pq.read_table(file)
        places = [f"gqa.tfrecord#place={row}" for row in range(EXAMPLES)]
        # Each run has failed to read one copy of which the other knows the digest.
        digests = [None if row == unread else str(row // 20) for row in range(EXAMPLES)]
        place = rows.schema.get_field_index("image_sha256")
        rows = rows.set_column(place, "image_sha256", pa.array(digests * 2, pa.string()))
        pq.write_table(rows.append_column("image", pa.array(places * 2, pa.string())), file)
    summary = promote(tmp_path, runs["new"], runs["old"])
    (deciding,) = summary.comparisons
    # Two images are right that were wrong, which may be chance; of 40 questions it would not be.
    assert (summary.promoted, deciding.examples, deciding.low) == (False, 20, 0)


def test_an_incumbent_that_is_not_in_use_any_more_is_refused(
    tmp_path: Path, incumbent: str
) -> None:
    candidate = evaluated(tmp_path, "new", right(0.9), right(0.9))
    assert promote(tmp_path, candidate, incumbent).promoted
    other = evaluated(tmp_path, "newer", right(0.95), right(0.9))
    with pytest.raises(SpecError, match=r"points to version 2, /models/new.npz, which is not what"):
        promote(tmp_path, other, incumbent)
    assert promote(tmp_path, other, candidate).version == 3
    with pytest.raises(SpecError, match="staging of digits points to nothing, which is not"):
        promote(tmp_path, other, candidate, alias="staging")


def test_of_two_promoters_at_once_one_wins(tmp_path: Path, incumbent: str) -> None:
    names = ["a", "b"]
    candidates = [evaluated(tmp_path, name, right(0.9), right(0.9)) for name in names]

    def attempt(candidate: str) -> bool:
        try:
            return promote(tmp_path, candidate, incumbent).promoted
        except SpecError:
            return False

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(attempt, candidates))
    assert sorted(won) == [False, True]
    assert [version.sha256 for version in model(tmp_path).versions] == ["old", names[won[1]]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"metric": "held_out/cider"}, "'held_out/cider' is no figure of .*; it has held_out/ex"),
        ({"guards": {"x/anls": 0.1}}, "'x/anls' is no figure of"),
        ({"candidate": "/not/there"}, "/not/there: no finished evaluation there"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, incumbent: str, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SpecError, match=expected):
        promote(tmp_path, fields.pop("candidate", incumbent), incumbent, **fields)


def test_a_first_checkpoint_seeds_an_alias_and_no_other_does(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, checkpoint=str(BUNDLED_CHECKPOINT))
    first = job.promote(spec, Console())
    with local_copy(BUNDLED_CHECKPOINT) as path:
        assert first.checkpoint_sha256 == checkpoint_sha256(path)
    assert (first.promoted, first.version) == (True, 1)
    again = job.promote(spec_of(tmp_path, checkpoint="/not/there.npz"), Console())
    assert (again.promoted, again.version) == (False, 1)
    assert again.reason == "production points to version 1 already"
    with pytest.raises(SpecError, match=r"checkpoint='/not/there.npz': "):
        job.promote(spec_of(tmp_path, checkpoint="/not/there.npz", alias="other"), Console())
    with pytest.raises(SpecError, match="is neither safetensors nor Orbax"):
        job.promote(spec_of(tmp_path, checkpoint=str(tmp_path), alias="other"), Console())


def test_a_figure_that_is_no_number_promotes_nothing(tmp_path: Path, incumbent: str) -> None:
    candidate = evaluated(tmp_path, "new", [math.nan, *right(0.9)[1:]], right(0.9))
    figures = {"held_out/exact_match": None, "old_domain/anls": 0.9}
    manifest = Path(candidate, "_manifest.json")
    assert json.loads(manifest.read_text())["figures"] == figures
    with pytest.raises(SpecError, match="'held_out/exact_match' is no figure of"):
        promote(tmp_path, candidate, incumbent)
    told = json.loads(manifest.read_text()) | {"figures": {"held_out/exact_match": 0.9}}
    manifest.write_text(json.dumps(told))
    with pytest.raises(SpecError, match=r"held_out/exact_match of .*new: no number; evaluate it"):
        promote(tmp_path, candidate, incumbent)
    assert model(tmp_path).aliases == {"production": 1}


def test_what_is_said_of_a_promotion_says_nothing_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "registry")
    registry.register(where, "digits", Weights("/models/\x1b[31mold.npz", "old"))
    registry.move(where, "digits", "production", 1, "the first")
    job.promote(spec_of(tmp_path, checkpoint="/not/there.npz"), Console())
    assert r"is version 1: /models/\x1b[31mold.npz" in capsys.readouterr().out
