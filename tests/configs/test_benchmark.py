"""Benchmarks as data: each row of the model card has one, with the card's figures."""

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from paliflow.configs import EvaluateSpec, FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import benchmark, benchmark_names
from paliflow.configs.examples import MetricName

CARD = json.loads((Path(__file__).parents[1] / "data" / "model_card.json").read_text())


def test_each_row_of_the_card_has_benchmarks_with_its_figures() -> None:
    of_row: dict[str, list[str]] = {}
    for name in benchmark_names():
        of_row.setdefault(benchmark(name).card, []).append(name)
    assert {row["row"] for row in CARD} <= of_row.keys()
    for row in CARD:
        for name in of_row[row["row"]]:
            for variant, figures in row["published"].items():
                own = benchmark(name).published.get(variant, {})
                assert list(own.values()) == figures, (name, variant)


@pytest.mark.parametrize("name", benchmark_names())
def test_a_benchmark_names_metrics_groups_and_a_model_that_there_are(name: str) -> None:
    known = benchmark(name)
    assert {*known.metrics, *known.groups} <= set(get_args(MetricName))
    own = {*known.parts, *(known.rows.groups if known.rows else ()), "split"}
    used = {group for groups in known.groups.values() for group in groups}
    used |= {figure.mean_over for figure in known.figures if figure.mean_over}
    used |= {group for figure in known.figures for group in figure.where}
    assert known.reader != "records" or used <= own
    assert known.reuses is None or known.reuses in benchmark_names()
    if name != "refcoco" and not known.scorer:  # whose masks have no codes to learn from
        assert (known.recipe is None) == (known.reuses is not None)
    assert all(math.isfinite(figure.scale) for figure in known.figures)


def test_an_evaluation_asks_a_benchmark_as_that_wants_unless_it_says_otherwise() -> None:
    fields = {"output": "out", "run_id": "r"}
    spec = EvaluateSpec.parse(fields | {"sets": {"a": {"benchmark": "docvqa", "path": "in"}}})
    assert (spec.max_new_tokens, spec.exif) == (32, "ignore")
    spec = EvaluateSpec.parse(spec.model_dump() | {"max_new_tokens": 8})
    assert spec.max_new_tokens == 8
    assert EvaluateSpec.parse(spec.given()) == spec
    sets = {name: {"benchmark": name, "path": "in"} for name in ("docvqa", "vizwiz")}
    with pytest.raises(SpecError, match=r"sets.vizwiz: .*max_new_tokens=48, another .* with 32"):
        EvaluateSpec.parse(fields | {"sets": sets})
    EvaluateSpec.parse(fields | {"sets": sets, "max_new_tokens": 32})


def test_benchmarks_of_a_spec_are_sets_of_their_names() -> None:
    fields = {"output": "out", "run_id": "r", "data": "in"}
    spec = EvaluateSpec.parse(fields | {"benchmarks": "gqa"})  # as a mapped task gives it
    assert spec.sets["gqa"].path == "in"
    assert EvaluateSpec.parse(spec.given()) == spec == EvaluateSpec.parse(spec.model_dump())
    own = {"gqa": {"benchmark": "gqa", "path": "there"}, "old": {"path": "a.jsonl"}}
    spec = EvaluateSpec.parse(fields | {"benchmarks": ["gqa", "xgqa"], "sets": own})
    assert {name: each.path for name, each in spec.sets.items()} == {
        **{"gqa": "there", "xgqa": "in"},
        "old": "a.jsonl",
    }
    with pytest.raises(SpecError, match="benchmarks: give data"):
        EvaluateSpec.parse({"output": "out", "run_id": "r", "benchmarks": ["gqa"]})
    with pytest.raises(SpecError, match=r"sets=\{\}: give at least one, or benchmarks"):
        EvaluateSpec.parse({"output": "out", "run_id": "r"})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"benchmark": "vqa2"}, "no benchmark 'vqa2' is known; there are activitynet_cap, "),
        (
            {"benchmark": "vqav2", "split": "dev"},
            "vqav2 has no dev; it has train, val",
        ),
        ({"split": "val"}, "split='val': of which benchmark"),
        ({"benchmark": "gqa", "metrics": ["anls"]}, "metrics: benchmark 'gqa' has its own"),
    ],
)
def test_a_set_of_a_benchmark_that_is_not_there_is_refused(
    source: dict[str, object], expected: str
) -> None:
    fields = {"output": "out", "run_id": "r", "sets": {"a": {"path": "in", **source}}}
    with pytest.raises(SpecError, match=expected):
        EvaluateSpec.parse(fields)


def test_a_benchmark_is_learnt_by_its_published_recipe_unless_the_spec_says_otherwise() -> None:
    fields = {"output": "out", "run_id": "r", "data": "in"}
    spec = FineTuneSpec.parse(fields | {"benchmark": "tallyqa", "image_size": 448})
    assert (spec.train[0].benchmark, spec.train[0].split) == ("tallyqa", "train")
    assert (spec.duration.epochs, spec.batch_size, spec.weight_decay) == (2, 256, 1e-6)
    assert (spec.max_tokens, spec.too_long, spec.exif) == (33, "truncate", "ignore")
    assert FineTuneSpec.parse(spec.given()) == spec == FineTuneSpec.parse(spec.model_dump())
    spec = FineTuneSpec.parse(fields | {"benchmark": "nlvr2", "batch_size": 8})
    assert (spec.images_per_example, spec.batch_size, spec.learning_rate) == (2, 8, 1e-5)
    assert spec.train[0].split == "train+dev"
    video = FineTuneSpec.parse(fields | {"benchmark": "msvd_qa"}).video
    assert video
    assert (video.every_frames, video.clip and video.clip.frames) == (26, 8)
    with pytest.raises(SpecError, match="the model that was fine-tuned on gqa"):
        FineTuneSpec.parse(fields | {"benchmark": "xgqa"})
    with pytest.raises(SpecError, match=r"train=\[\]: give at least one source, or benchmark"):
        FineTuneSpec.parse(fields)


@pytest.mark.parametrize("name", [name for name in benchmark_names() if benchmark(name).recipe])
def test_every_recipe_is_a_spec_at_each_resolution(name: str) -> None:
    for size in benchmark(name).resolutions:
        fields = {"output": "out", "run_id": "r", "data": "in", "benchmark": name}
        assert FineTuneSpec.parse(fields | {"image_size": size}).train
