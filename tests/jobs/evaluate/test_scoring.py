"""Answers become scores by the metrics of their task, example by example."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paliflow import metrics
from paliflow.configs.base import SpecError
from paliflow.configs.examples import MetricName
from paliflow.configs.prompts import task_of
from paliflow.jobs.evaluate.ranking import (
    BOXES,
    coco_shares,
    kept_boxes,
    of_model,
    ranked_boxes,
)
from paliflow.jobs.evaluate.regions import region_overlap
from paliflow.jobs.evaluate.scoring import metrics_of, score
from paliflow.metrics import box_iou
from paliflow.metrics.objects import RankedBoxes
from paliflow.model import MaskDecoder

VAE = Path(__file__).parents[2] / "data" / "reference" / "vae.weights.npz"
Row = dict[str, Any]
HALF = "<loc0000><loc0000><loc0512><loc1023>"
WHOLE = "<loc0000><loc0000><loc1023><loc1023>"


def test_specs_know_the_metrics_of_the_registry() -> None:
    assert get_args(MetricName) == tuple(metrics.METRICS)
    assert all(name == metric.name for name, metric in metrics.METRICS.items())
    tasks = set[str]().union(*(metric.tasks for metric in metrics.METRICS.values()))
    assert tasks == {task_of(task) for task in tasks} - {"custom"}


def figure(
    metric: str,
    answers: Sequence[Sequence[str]],
    texts: Sequence[str | None],
    prefix: str = "answer en what?",
    decoder: MaskDecoder | None = None,
) -> float:
    return score([metric], [prefix] * len(texts), answers, texts, decoder)[metric].figure


@pytest.mark.parametrize(
    ("metric", "right", "text", "expected"),
    [
        ("exact_match", ["two"], " two\n", 1),
        ("exact_match", ["two"], "Two", 0),
        ("exact_match", ["2", "two"], "two", 1),
        ("anls", ["Invoice", "bill"], "invoise", 6 / 7),
        ("relaxed_match", ["100"], "104", 1),
        ("relaxed_match", ["Yes"], "yes", 1),
        ("count_match", ["two"], "2", 1),
        ("vqa_accuracy", ["Two."], "2", 1),
        ("vqa_accuracy", ["3", "three"], "Three", 1),
        ("simple_vqa_accuracy", ["yes"] * 2 + ["Yes"] * 8, "yes", 2 / 3),
        ("vqa_accuracy", ["yes"] * 2 + ["no"] * 8, "yes", 0.6),
    ],
)
def test_an_answer_is_scored_as_its_benchmark_does(
    metric: str, right: list[str], text: str, expected: float
) -> None:
    assert figure(metric, [right], [text]) == pytest.approx(expected)


def test_captions_are_scored_as_a_set() -> None:
    right = [["a cat on a mat", "the cat"], ["two dogs in the snow"], ["a red bus"]]
    texts = ["a cat on the mat", "two dogs", "a green car"]
    whole = dict(enumerate(right)), dict(enumerate(texts))
    assert figure("cider", right, texts) == pytest.approx(metrics.cider(*whole))
    assert figure("rouge_l", right, texts) == pytest.approx(metrics.rouge_l(*whole))
    bleu = [figure(f"bleu_{order}", right, texts) for order in (1, 2, 3, 4)]
    assert bleu == pytest.approx(metrics.bleu(*whole))


def test_detection_f1_is_that_of_all_images_together() -> None:
    right = [[f"{HALF} cat"], [f"{WHOLE} cat ; {HALF} dog"], [""]]
    texts = [f"{HALF} cat", f"{WHOLE} dog ; {HALF} dog", f"{HALF} cat"]
    assert figure("detection_f1", right, texts) == pytest.approx(2 * 2 / (3 + 4))
    assert figure("detection_f1", [[""]], [""]) == 1


def test_precision_and_recall_are_those_of_all_images_together() -> None:
    right = [[f"{HALF} cat"], [f"{WHOLE} cat ; {HALF} dog"], [""]]
    texts = [f"{HALF} cat", f"{WHOLE} dog ; {HALF} dog", f"{HALF} cat"]
    assert figure("detection_precision", right, texts) == pytest.approx(2 / 4)
    assert figure("detection_recall", right, texts) == pytest.approx(2 / 3)
    for metric in ("detection_precision", "detection_recall"):
        assert figure(metric, [[""], [""]], ["", ""]) == 1
        assert figure(metric, [[f"{HALF} cat"], [""]], ["", ""]) == 0
        assert figure(metric, [[""], [""]], [f"{HALF} cat", ""]) == 0
        assert figure(metric, [[f"{WHOLE} cat", f"{HALF} cat"]], [f"{HALF} cat"]) == 1


def test_character_accuracy_weighs_answers_by_their_length() -> None:
    right = [["Invoice"], ["12345", "123"], [""]]
    assert figure("character_accuracy", right, [" Invoise", "123", ""]) == pytest.approx(10 / 11)
    assert figure("character_accuracy", right, ["", "987654321", "x"]) == 0


def test_the_best_of_several_right_answers_counts() -> None:
    right = [[f"{WHOLE} cat", f"{HALF} cat"]]
    assert figure("detection_f1", right, [f"{HALF} cat"]) == 1
    assert figure("mean_iou", right, [f"{HALF} cat"]) == 1


def test_of_one_object_wanted_the_first_given_counts_whatever_its_label() -> None:
    given = f"{HALF} animal ; {WHOLE} cat"
    assert figure("mean_iou", [[f"{WHOLE} cat"]], [given]) == pytest.approx(512 / 1023)
    assert figure("mean_iou", [[f"{WHOLE} cat"]], ["a cat"]) == 0


def test_of_several_objects_each_is_compared_with_its_labels_next() -> None:
    wanted = f"{HALF} dog ; {WHOLE} cat ; {HALF} cat ; {WHOLE} bus"
    given = f"{WHOLE} cat ; {HALF} dog ; {WHOLE} cat ; {WHOLE} cat"
    assert figure("mean_iou", [[wanted]], [given]) == pytest.approx((2 + 512 / 1023) / 4)


def test_a_region_is_scored_as_big_vision_scores_refcoco() -> None:
    """Against its evaluator's steps, by hand: truncated box, resized mask, pixels counted."""
    decoder = MaskDecoder.from_checkpoint(VAE)
    rng = np.random.default_rng(3)
    wanted_mask = np.zeros((50, 70), np.uint8, order="F")
    wanted_mask[11:37, 20:61] = 1
    rle = coco_mask.encode(wanted_mask)
    wanted: dict[str, Any] = {
        "box": [11 / 50, 20 / 70, 37 / 50, 61 / 70],
        "mask": {"size": [50, 70], "counts": rle["counts"].decode()},
    }
    locations, codes = (230, 290, 760, 890), rng.integers(0, 128, 16)
    answer = "".join(f"<loc{n:04d}>" for n in locations) + "".join(f"<seg{n:03d}>" for n in codes)
    y_min, x_min, y_max, x_max = (
        int(n / 1023 * side) for n, side in zip(locations, (50, 70, 50, 70), strict=True)
    )
    mask = Image.fromarray(np.asarray(decoder(codes[None])[0]))
    inside = np.asarray(mask.resize((x_max - x_min, y_max - y_min), Image.Resampling.BILINEAR)) > 0
    common = (wanted_mask[y_min:y_max, x_min:x_max].astype(bool) & inside).sum()
    overlap = common / (wanted_mask.sum() + inside.sum() - common)
    assert 0 < overlap < 1
    assert region_overlap(f"{answer}<seg001> cat", wanted, decoder) == pytest.approx(overlap)
    assert region_overlap(answer, wanted) == pytest.approx(
        float(box_iou(np.array(locations) / 1023, wanted["box"]))
    )
    for none in (
        "",
        " " + answer,
        answer.replace("<loc0760>", "<loc0100>"),
        answer[:-8],
        answer[9:],
    ):
        assert region_overlap(none, wanted) == region_overlap(none, wanted, decoder) == 0


def test_boxes_are_ranked_by_their_confidence_where_there_is_one() -> None:
    box = {"label": "cat", "y_min": 0.0, "x_min": 0.0, "y_max": 100.0, "x_max": 100.0}
    sure = {"score": 0.1, "label_probability": 0.9, "location_mass": 0.5}
    found = [box | sure, box | sure | {"confidence": 0.8}]
    row = detected([f"{WHOLE} cat"], found)
    scores, right, wanted = ranked_boxes(row)
    assert scores == pytest.approx([0.45, 0.8])
    assert sum(right) == wanted == 1
    failed = row | {"status": "error", "details": {}}
    assert ranked_boxes(failed) == RankedBoxes([], [], 1)  # which is to be found all the same
    assert ranked_boxes(row | {"references": []}) == RankedBoxes()
    with pytest.raises(SpecError, match="do not keep how sure the model was"):
        ranked_boxes(row | {"details": {}})


def detected(right: list[str], found: list[Row], side: int = 100) -> Row:
    """A prediction as it is kept: what is right, and the boxes that were given."""
    answer = {"width": side, "height": side, "detections": found}
    return {
        **{"prefix": "detect cat", "references": right, "text": "", "status": "ok"},
        **{"image_sha256": None, "image": "a.png", "details": {BOXES: kept_boxes(answer)}},
    }


def test_cocos_average_precision_is_that_of_its_own_script() -> None:
    rng = np.random.default_rng(5)
    labels, rows = ("cat", "dog", "bus"), list[Row]()
    truth: Row = {"images": [], "annotations": [], "categories": [{"id": n} for n in range(3)]}
    results = []
    for image in range(30):
        truth["images"].append({"id": image})
        right, found = [], []
        for _ in range(int(rng.integers(4))):
            number = int(rng.integers(3))
            corner, size = rng.integers(0, 500, 2), rng.integers(60, 500, 2)
            bins = np.concatenate([corner, np.minimum(corner + size, 1023)])
            right.append("".join(f"<loc{n:04d}>" for n in bins) + f" {labels[number]}")
            y_min, x_min, y_max, x_max = bins / 1023 * 640
            own = {"image_id": image, "category_id": number, "iscrowd": 0}
            sides = [x_min, y_min, x_max - x_min, y_max - y_min]
            area = {"id": len(truth["annotations"]) + 1, "area": sides[2] * sides[3]}
            truth["annotations"].append({**own, **area, "bbox": sides})
            for _ in range(int(rng.integers(3))):  # none, one or two boxes somewhere near it
                given = np.array([y_min, x_min, y_max, x_max]) + rng.normal(0, 20, 4)
                number = number if rng.random() < 0.8 else int(rng.integers(3))
                sure = float(rng.random())
                names = ("y_min", "x_min", "y_max", "x_max")
                box = dict(zip(names, given.tolist(), strict=True))
                found.append(box | {"label": labels[number], "score": sure})
                sides = [given[1], given[0], given[3] - given[1], given[2] - given[0]]
                results.append({**own, "category_id": number, "bbox": sides, "score": sure})
        rows.append(detected([" ; ".join(right)], found, side=640))
    known = COCO()
    known.dataset = truth
    known.createIndex()
    official = COCOeval(known, known.loadRes(results), "bbox")
    official.evaluate()
    official.accumulate()
    official.summarize()
    metrics_ = ["coco_ap", "coco_ap_50"]
    scores = score(
        *(metrics_, [""] * 30, [row["references"] for row in rows], [""] * 30),
        **of_model(metrics_, rows),
    )
    assert 0.1 < official.stats[0] < official.stats[1] < 0.95
    figures = [scores[name].figure for name in metrics_]
    assert figures == pytest.approx(official.stats[:2], abs=1e-6)
    low, high = metrics.bootstrap_interval(*scores["coco_ap"])
    assert low < figures[0] < high < 1
    # Nothing found, and nothing to find.
    assert coco_shares([detected([f"{WHOLE} cat"], [])], None).tolist() == [0]
    assert coco_shares([detected([""], [])], None).tolist() == [1]


def test_perplexity_is_of_all_tokens_together_and_unknown_where_nothing_was_scored() -> None:
    known = [(12.0, 4), (2.0, 2), (0.0, 0)]  # of the last the image could not be read
    asked, texts = ["ocr"] * 3, ["a", "b", None]
    (own,) = score(["perplexity"], asked, [["x"]] * 3, texts, likelihoods=known).values()
    assert own.figure == pytest.approx(np.exp(14 / 6))
    low, high = metrics.bootstrap_interval(*own)
    assert low < own.figure < high
    (none,) = score(["perplexity"], [""], [["x"]], ["a"], likelihoods=[(0.0, 0)]).values()
    assert not none.denominators.any()


def test_the_character_error_rate_is_of_all_characters_and_counts_what_failed() -> None:
    right = [["Invoice"], ["12345", "123"], ["abc"]]
    given = figure("character_error_rate", right, [" Invoise", "124", None])
    assert given == pytest.approx((1 + 1 + 3) / (7 + 3 + 3))


def test_masks_are_compared_where_there_is_a_decoder() -> None:
    decoder = MaskDecoder.from_checkpoint(VAE)
    one, other = ("".join(f"<seg{code:03d}>" for code in codes) for codes in (range(16), [7] * 16))
    right = [[f"{WHOLE}{one} cat"]]
    asked = "segment cat"
    assert figure("mean_iou", right, [f"{WHOLE}{one} cat"], asked, decoder) == 1
    assert figure("mean_iou", right, [f"{WHOLE} cat"], asked, decoder) == 0
    assert 0 <= figure("mean_iou", right, [f"{WHOLE}{other} cat"], asked, decoder) < 1
    assert figure("mean_iou", right, [f"{WHOLE}{other} cat"], asked) == 1
    assert figure("mean_iou", right, [f"{WHOLE}{other} cat"], "detect cat", decoder) == 1


def test_where_nothing_is_to_be_found_what_is_given_is_a_false_positive() -> None:
    right = [[f"{HALF} cat"], [""]]
    assert figure("detection_f1", right, [f"{HALF} cat", ""]) == 1
    assert figure("detection_f1", right, [f"{HALF} cat", f"{HALF} cat"]) == pytest.approx(2 / 3)
    assert figure("mean_iou", right, [f"{HALF} cat", ""], "segment cat") == 1
    assert figure("mean_iou", right, [f"{HALF} cat", f"{HALF} cat"], "segment cat") == 0.5
    for metric in ("exact_match", "anls", "relaxed_match", "count_match", "vqa_accuracy"):
        assert figure(metric, [[""]], [""]) == 1
        assert figure(metric, [[""]], ["cat"]) == 0
    assert figure("cider", [["a cat"], [""]], ["a cat", ""]) >= 0
    assert figure("rouge_l", [["a cat"], [""]], ["a cat", ""]) >= 0


@pytest.mark.parametrize(
    "metric",
    [
        *("exact_match", "character_accuracy", "rouge_l", "cider"),
        *("detection_f1", "detection_precision", "detection_recall", "mean_iou"),
    ],
)
def test_what_failed_scores_nothing_and_counts(metric: str) -> None:
    right = [[f"{HALF} a cat"], [f"{WHOLE} two dogs"]]
    whole = figure(metric, right, [right[0][0], right[1][0]])
    assert figure(metric, right, [right[0][0], None]) < whole
    assert figure(metric, [[""]], [None]) == 0


@pytest.mark.parametrize(
    ("prefixes", "expected"),
    [
        (["caption en", "cap de"], ("cider",)),
        (["answer en how many?"], ("vqa_accuracy",)),
        (["ocr"], ("exact_match", "anls")),
        (["detect cat", "detect dog"], ("detection_f1",)),
        (["segment cat"], ("mean_iou",)),
    ],
)
def test_a_sets_task_says_how_it_is_scored(prefixes: list[str], expected: tuple[str, ...]) -> None:
    assert metrics_of("held_out", None, prefixes) == expected
    assert metrics_of("held_out", ("rouge_l", "rouge_l"), prefixes) == ("rouge_l",)


def test_where_the_task_does_not_say_the_error_names_the_fix() -> None:
    with pytest.raises(SpecError, match=r"'held_out': .* tasks caption, ocr; give `metrics`"):
        metrics_of("held_out", None, ["ocr", "caption en"])
    with pytest.raises(SpecError, match="name no task of a metric; give `metrics`, some of exact"):
        metrics_of("held_out", None, ["what is this?"])
