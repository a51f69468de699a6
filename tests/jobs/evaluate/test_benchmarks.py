"""Benchmarks are read, asked and scored: each figure is what its rule says of the answers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from paliflow import metrics
from paliflow.configs import EvaluateSpec, EvaluateSummary
from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import benchmark, benchmark_names
from paliflow.jobs.evaluate.figures import benchmark_scores, group_figures
from paliflow.jobs.evaluate.predictions import read_predictions, write_predictions
from paliflow.jobs.evaluate.rescoring import rescore
from paliflow.jobs.examples.plan import read_plan
from paliflow.tests.jobs.benchmark_files import write_all
from paliflow.tests.jobs.here import evaluate_here

VAE = Path(__file__).parents[2] / "data" / "reference" / "vae.weights.npz"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> EvaluateSummary:
    """Benchmarks of each kind of rule, asked in one run."""
    folder = tmp_path_factory.mktemp("benchmarks")
    write_all(folder / "data")
    return evaluate(folder, "all", [*RULES, "screen2words", "widgetcap", "xgqa"])


def evaluate(folder: Path, run_id: str, names: list[str], **fields: Any) -> EvaluateSummary:
    sets = {name: {"benchmark": name, "path": str(folder / "data")} for name in names}
    limits = {"max_new_tokens": 6, "min_coverage": 0.7}
    run = {"output": str(folder / "out"), "run_id": run_id, "sets": sets}
    return evaluate_here(EvaluateSpec.parse({**run, **limits, **fields}))


@pytest.fixture(scope="module")
def answers(evaluated: EvaluateSummary) -> dict[str, list[Row]]:
    table = pq.read_table(f"{evaluated.location}/predictions.parquet").to_pylist()
    of_set: dict[str, list[Row]] = {}
    for row in table:
        of_set.setdefault(row["set"], []).append(row)
    return of_set


def leave_one_out(text: str, people: list[str]) -> float:
    if len(set(people)) > 1:
        text, *people = map(metrics.vqa_normalize, [text, *people])
    others = [people[:n] + people[n + 1 :] for n in range(len(people))]
    return float(np.mean([min(1.0, own.count(text) / 3) for own in others]))


def third(text: str, people: list[str]) -> float:
    return min(1.0, people.count(text) / 3)


def same(text: str, right: list[str]) -> float:
    return float(text in right)


def similarity(text: str, right: list[str]) -> float:
    return max(metrics.anls(each.lower(), text.lower()) for each in right)


def same_count(text: str, right: list[str]) -> float:
    return float(metrics.count_from_word(text) in right)


RULES: dict[str, Callable[[str, list[str]], float]] = {
    "countbenchqa": same_count,
    "vqav2": leave_one_out,
    "textvqa": leave_one_out,
    "okvqa": third,
    "vizwiz": third,
    "aokvqa_da": third,
    "aokvqa_mc": same,
    "ai2d": same,
    "gqa": same,
    "ocrvqa": same,
    "docvqa": similarity,
    "infovqa": similarity,
    "stvqa": similarity,
}


@pytest.mark.parametrize("name", RULES)
def test_the_figure_of_short_answers_is_the_mean_of_their_rule(
    evaluated: EvaluateSummary, answers: dict[str, list[Row]], name: str
) -> None:
    figure = benchmark(name).figures[0].name
    right = [RULES[name](row["text"] or "", row["references"]) for row in answers[name]]
    assert evaluated.figures[f"{name}/{figure}"] == pytest.approx(np.mean(right))
    low, high = evaluated.sets[name].intervals[figure]
    assert low <= np.mean(right) <= high


def test_what_a_set_cannot_be_scored_by_is_said_before_anything_is_asked(
    evaluated: EvaluateSummary, tmp_path: Path
) -> None:
    folder = Path(evaluated.location).parents[1]
    with pytest.raises(SpecError, match="refcoco compares masks: give mask_decoder"):
        evaluate(folder, "masks", ["refcoco"])
    (tmp_path / "set.jsonl").write_text('{"image": "a.png", "prefix": "ocr", "suffix": "1"}')
    own = {"own": {"path": str(tmp_path / "set.jsonl"), "metrics": ["region_box_50"]}}
    with pytest.raises(SpecError, match=r"sets\.own\.metrics: region_box_50: only benchmarks"):
        evaluate(tmp_path, "own", [], sets=own)


def test_some_answers_are_right_and_some_are_not(evaluated: EvaluateSummary) -> None:
    # Else no figure above would say anything.
    assert 0 < evaluated.figures["vqav2/accuracy"] < 1
    assert 0 < evaluated.figures["gqa/accuracy"] < 1


def test_a_missing_image_stays_in_the_figure_as_an_empty_answer(
    evaluated: EvaluateSummary, answers: dict[str, list[Row]]
) -> None:
    assert (answers["vqav2"][-1]["status"], answers["vqav2"][-1]["text"]) == ("error", None)
    own = evaluated.sets["vqav2"]
    assert (own.rows, own.answered, own.of, own.scored, own.coverage) == (5, 4, 5, 5, 0.8)
    # A row that is no example lowers coverage as well: one of four screens has no summaries.
    own = evaluated.sets["screen2words"]
    assert (own.rows, own.of, own.coverage) == (3, 4, 0.75)


def test_a_corpus_figure_is_of_the_whole_set(
    evaluated: EvaluateSummary, answers: dict[str, list[Row]]
) -> None:
    for name in ("screen2words", "widgetcap"):
        captions = {row["id"]: row["text"] for row in answers[name]}
        right = {row["id"]: row["references"] for row in answers[name]}
        assert evaluated.figures[f"{name}/cider"] == pytest.approx(metrics.cider(right, captions))


def test_a_mean_over_groups_weighs_them_alike_whatever_their_size(
    evaluated: EvaluateSummary, answers: dict[str, list[Row]]
) -> None:
    of_language: dict[str, list[float]] = {}
    for row in answers["xgqa"]:
        language = row["id"].partition("/")[0]
        of_language.setdefault(language, []).append(row["text"] in row["references"])
    means = {language: np.mean(own) for language, own in of_language.items()}
    assert evaluated.figures["xgqa/accuracy"] == pytest.approx(np.mean(list(means.values())))
    del means["en"]
    assert evaluated.figures["xgqa/without-en"] == pytest.approx(np.mean(list(means.values())))
    table = evaluated.sets["xgqa"].groups["bv_exact"]["language"]
    assert {language: own.rows for language, own in table.items()} == {
        language: len(own) for language, own in of_language.items()
    }


@pytest.mark.slow
def test_pairs_of_images_are_asked_together_and_one_that_lacks_an_image_is_not(
    evaluated: EvaluateSummary,
) -> None:
    folder = Path(evaluated.location).parents[1]
    summary = evaluate(folder, "pairs", ["nlvr2", "marvl"], max_error_fraction=1.0)
    table = pq.read_table(f"{summary.location}/predictions.parquet").to_pylist()
    assert [row["status"] for row in table] == ["ok"] * 3 + ["error"] + ["ok"] * 5
    right = [row["text"] in row["references"] for row in table]
    assert summary.figures["nlvr2/accuracy"] == pytest.approx(np.mean(right[:4]))
    assert summary.figures["marvl/accuracy"] == pytest.approx(np.mean(right[4:]))
    assert summary.sets["nlvr2"].coverage == 0.75


@pytest.mark.slow
def test_every_benchmark_of_images_is_asked_by_beam_search(evaluated: EvaluateSummary) -> None:
    folder = Path(evaluated.location).parents[1]
    names = [name for name in benchmark_names() if not benchmark(name).sampling]
    summary = evaluate(folder, "every", names, beams=2, mask_decoder=str(VAE))
    assert {name.partition("/")[0] for name in summary.figures} == set(names)


@pytest.mark.slow
def test_videos_are_asked_as_clips(evaluated: EvaluateSummary) -> None:
    folder = Path(evaluated.location).parents[1]
    videos = [name for name in benchmark_names() if benchmark(name).video]
    few = {"every_frames": 2, "clip": {"frames": 2}}
    summary = evaluate(folder, "videos", videos, video=few)
    covered = {name: own.coverage for name, own in summary.sets.items()}
    assert covered == dict.fromkeys(videos, 1.0) | {"activitynet_cap": 0.75}
    assert {name.partition("/")[0] for name in summary.figures} == set(videos)


def test_below_the_least_coverage_there_is_no_figure(
    evaluated: EvaluateSummary, tmp_path: Path
) -> None:
    plan = read_plan(evaluated.location)
    assert plan
    spec = EvaluateSpec.parse(evaluated.spec | {"min_coverage": 0.9, "output": str(tmp_path)})

    def rows(name: str) -> list[Row]:
        return read_predictions(evaluated.location, name)

    figures, sets = write_predictions(spec, {}, plan.sources, rows)
    assert figures.keys() == {
        name
        for name in evaluated.figures
        if name.partition("/")[0] not in ("vqav2", "okvqa", "screen2words", "ai2d", "widgetcap")
    }
    assert sets["vqav2"].note == (
        "80.0% of the rows could be asked, min_coverage=0.9 wants more: no figures"
    )


def made_up(name: str, rows: list[tuple[str, str, dict[str, str]]]) -> dict[str, float]:
    """The figures of rows: what is right, what was answered, the groups."""
    known = [
        {
            "prefix": "answer en what?", "references": [right], "text": text, "image": str(n),
            "image_sha256": None, "details": {"groups": {k: [v] for k, v in groups.items()}},
        }
        for n, (right, text, groups) in enumerate(rows)
    ]  # fmt: skip
    scores = benchmark_scores(benchmark(name), known)
    assert group_figures(benchmark(name), known).keys() <= set(benchmark(name).metrics)
    return {figure: own.figure for figure, own in scores.items() if own.denominators.any()}


def test_pope_is_parsed_as_big_vision_does_and_as_its_authors_do() -> None:
    said = [
        ("yes", "Yes"),
        ("no", "no"),
        ("no", "No, there is not."),
        ("yes", "there is"),
        ("no", ""),
    ]
    figures = made_up("pope", [(right, text, {"file": "random"}) for right, text in said])
    assert figures == pytest.approx({"random": 2 / 5, "official": 4 / 5})


def test_a_pair_is_right_if_both_are_and_counts_once() -> None:
    known = [
        {
            "prefix": "answer en what?", "references": ["x"], "text": text, "image": str(n),
            "image_sha256": None, "details": {"groups": {}, "cluster": str(n // 2)},
        }
        for n, text in enumerate(["x", "x", "x", "y", None, "x"])
    ]  # fmt: skip
    scores = benchmark_scores(benchmark("mmvp"), known)
    assert scores["pairs"].figure == pytest.approx(1 / 3)
    assert scores["pairs"].denominators.sum() == 3
    assert scores["single"].figure == pytest.approx(4 / 6)


def test_bleu_is_that_of_the_whole_set_and_its_interval_holds_it() -> None:
    right = [["a page with two digits"], ["three digits on a page"], ["one digit alone on a page"]]
    said = ["a page with two digits", "three digits on page", "a digit alone on a page"]
    known: list[dict[str, Any]] = [
        {
            "prefix": "caption en", "references": own, "text": text, "image": str(n),
            "image_sha256": None, "details": {"groups": {}},
        }
        for n, (own, text) in enumerate(zip(right, said, strict=True))
    ]  # fmt: skip
    score = benchmark_scores(benchmark("scicap"), known)["bleu-4"]
    whole = metrics.bleu(dict(enumerate(right)), dict(enumerate(said)))[3]
    assert score.figure == pytest.approx(whole, rel=1e-9)
    low, high = metrics.bootstrap_interval(*score)
    assert low < whole < high


def test_counts_are_told_by_words_or_digits_and_simple_ones_apart() -> None:
    simple, hard = {"issimple": "True"}, {"issimple": "False"}
    figures = made_up("tallyqa", [("2", "two", simple), ("2", "3", simple), ("0", "none", hard)])
    assert figures == pytest.approx({"simple": 0.5, "complex": 1.0})


def test_a_science_answer_is_the_letter_after_its_formula() -> None:
    right = "The answer is B."
    said = [right, "the answer is b. because", "B", "So the answer is B."]
    assert made_up("scienceqa", [(right, text, {}) for text in said]) == {"accuracy": 0.5}


def test_charts_are_the_mean_of_both_halves() -> None:
    human, machine = {"file": "human"}, {"file": "augmented"}
    rows = [
        ("100", "104", human),
        ("5", "6", human),
        ("7%", "0.07", machine),
        ("Yes", "yes", machine),
    ]
    figures = made_up("chartqa", rows)
    assert figures == pytest.approx({"accuracy": 0.75, "human": 0.5, "augmented": 1.0})


def test_remote_sensing_leaves_counts_out_and_means_over_types() -> None:
    rows = [
        ("yes", "yes", "comp"),
        ("yes", "no", "comp"),
        ("no", "no", "presence"),
        ("4", "5", "count"),
    ]
    figures = made_up("rsvqa_lr", [(right, text, {"type": kind}) for right, text, kind in rows])
    assert figures == pytest.approx({"accuracy": 0.75, "of-all": 0.5})


def test_difficult_answers_are_left_out_of_the_official_figure_alone() -> None:
    rows = [("a", "a", {"difficult": "True"}), ("a", "b", {"difficult": "False"})]
    assert made_up("aokvqa_da", rows) == pytest.approx({"accuracy": 1 / 6, "official": 0.0})


def test_scoring_again_needs_no_model_and_gives_the_same_figures(
    evaluated: EvaluateSummary, tmp_path: Path
) -> None:
    location = tmp_path / "out" / "run_id=all"
    location.mkdir(parents=True)
    shutil.copytree(f"{evaluated.location}/_plan", location / "_plan")
    for name in ("predictions.parquet", "_manifest.json"):
        shutil.copy(f"{evaluated.location}/{name}", location)
    again = rescore(str(location), Console())
    assert (again.figures, again.sets) == (evaluated.figures, evaluated.sets)
    before, after = (
        pq.read_table(f"{folder}/predictions.parquet") for folder in (evaluated.location, location)
    )
    assert before.equals(after)
