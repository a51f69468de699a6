"""Answers to scores: what each example adds to a figure, above and below its line."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from paliflow import metrics
from paliflow.configs.base import SpecError
from paliflow.configs.examples import Metric
from paliflow.configs.prompts import task_of
from paliflow.metrics.boxes import Box
from paliflow.model import Detection, MaskDecoder, parse_detections

_OF_TASK: dict[str, tuple[Metric, ...]] = {
    "caption": ("cider",),
    "answer": ("vqa_accuracy",),
    "ocr": ("exact_match", "anls"),
    "detect": ("detection_f1",),
    "segment": ("mean_iou",),
}
_SIDE = 1023
"""Pixels of the square in which objects are compared, so that boxes lie on its grid; to stretch
two boxes or masks alike does not change their IoU."""

_PEOPLE = 4
"""As many have to agree for a VQA accuracy of 1."""


class Score(NamedTuple):
    """A metric's parts, one a row; its figure is a ratio of sums."""

    numerators: NDArray[np.float64]  # [N]
    denominators: NDArray[np.float64]  # [N]

    @property
    def figure(self) -> float:
        """sum(numerators) / sum(denominators); 1 of nothing sought and nothing found."""
        return float(metrics.ratio(self.numerators.sum(), self.denominators.sum()))


def metrics_of(
    name: str, chosen: Sequence[Metric] | None, prefixes: Iterable[str]
) -> tuple[Metric, ...]:
    """The metrics of a set: those chosen, or else those of the task that all prefixes name.

    Args:
        name: of the set, for the error.
        chosen: `EvaluationSet.metrics`.
        prefixes: what is asked; not looked at if metrics were chosen.

    Raises:
        SpecError: nothing was chosen, and there are several tasks or one without a metric.
    """
    if chosen:
        return tuple(dict.fromkeys(chosen))
    tasks = sorted({task_of(prefix) for prefix in prefixes})
    if len(tasks) == 1 and (own := _OF_TASK.get(tasks[0])):
        return own
    why = f"are of the tasks {', '.join(tasks)}" if len(tasks) > 1 else "name no task of a metric"
    raise SpecError(
        f"set {name!r}: its prefixes {why}; give `metrics`, some of {', '.join(get_args(Metric))}, "
        "or make one set of each task"
    )


def score(
    chosen: Sequence[Metric],
    prefixes: Sequence[str],
    answers: Sequence[Sequence[str]],
    texts: Sequence[str | None],
    mask_decoder: MaskDecoder | None = None,
) -> dict[Metric, Score]:
    """Scores a set; the four sequences are of one length, and not empty.

    - `exact_match`, `anls`, `relaxed_match`, `count_match`: the best of the right answers.
      Surrounding space never counts; case does for `exact_match` alone.
    - `vqa_accuracy`: the official rule, four answers or more being several people's. Of fewer,
      which that rule never scores 1: whether one is the same in the official normal form.
    - `cider`, `rouge_l`: per caption; CIDEr weighs words by how common they are in the set's right
      answers, errors included, so that two models are weighed alike.
    - `detection_f1`: twice the objects matched, over those wanted and those given; label and IoU
      of at least 0.5. Of several right answers the best.
    - `mean_iou`: over the objects wanted. Where one is wanted, the first given counts, whatever
      its label, as RefCOCO is scored; of several, the k-th of a label is compared with the k-th
      given of that label. Those missing score 0, others given do not count. Masks are compared
      where the prefix says `segment`, the right answer has a mask and there is a decoder; else
      boxes. Where nothing is right to answer, that counts as one object, found if none is given.
      Of several right answers the best.

    Args:
        chosen: which metrics.
        prefixes: what was asked.
        answers: what is right, at least one of each.
        texts: what was answered; None where nothing could be asked, which scores nothing.
        mask_decoder: for `mean_iou`.
    """
    asked = list(zip(prefixes, answers, texts, strict=True))
    failed = np.array([text is None for text in texts])
    scores: dict[Metric, Score] = {}
    for metric in chosen:
        if caption := _CAPTIONS.get(metric):
            of_each = caption(dict(enumerate(answers)), {n: t or "" for n, t in enumerate(texts)})
            parts = np.array([[value, 1.0] for value in of_each.values()])
        elif answer := _ANSWERS.get(metric):
            parts = np.array([[answer(text or "", right), 1.0] for _, right, text in asked])
        elif metric == "detection_f1":
            parts = np.array([_detection(right, text or "") for _, right, text in asked])
        else:
            parts = np.array(
                [_overlap(prefix, right, text or "", mask_decoder) for prefix, right, text in asked]
            )
        # Nothing sought and nothing found adds nothing, but what failed has found nothing out.
        least = np.where(failed, np.maximum(parts[:, 1], 1.0), parts[:, 1])
        scores[metric] = Score(np.where(failed, 0.0, parts[:, 0]), least)
    return scores


_CAPTIONS = {"cider": metrics.cider_per_item, "rouge_l": metrics.rouge_l_per_item}


def _vqa(text: str, right: Sequence[str]) -> float:
    if len(right) >= _PEOPLE:
        return metrics.vqa_accuracy(text, right)
    return float(metrics.vqa_normalize(text) in map(metrics.vqa_normalize, right))


def _best(
    compare: Callable[[str, str], float], *, lower: bool = True
) -> Callable[[str, Sequence[str]], float]:
    def plain(text: str) -> str:
        return text.strip().lower() if lower else text.strip()

    return lambda text, right: max(float(compare(plain(each), plain(text))) for each in right)


_ANSWERS: dict[Metric, Callable[[str, Sequence[str]], float]] = {
    "exact_match": _best(metrics.exact_match, lower=False),
    "vqa_accuracy": _vqa,
    "anls": _best(metrics.anls),
    "relaxed_match": _best(metrics.relaxed_match),
    "count_match": _best(metrics.count_match),
}


def _detection(right: Sequence[str], text: str) -> tuple[float, float]:
    given = [_labelled(d) for d in _objects(text)]
    of_each = []
    for answer in right:
        wanted = [_labelled(d) for d in _objects(answer)]
        matched = metrics.count_matches(wanted, given)
        of_each.append((2.0 * matched, float(len(wanted) + len(given))))
    return max(of_each, key=lambda part: float(metrics.ratio(*part)))


def _overlap(
    prefix: str, right: Sequence[str], text: str, decoder: MaskDecoder | None
) -> tuple[float, float]:
    decoder = decoder if task_of(prefix) == "segment" else None
    given = _objects(text, decoder)
    of_each = []
    for answer in right:
        if not answer.strip():
            of_each.append((float(not given), 1.0))
            continue
        wanted = _objects(answer, decoder)
        total = sum(_iou(one, other) for one, other in _pairs(wanted, given))
        of_each.append((total, float(len(wanted))))
    return max(of_each, key=lambda part: part[0] / max(1.0, part[1]))


def _pairs(
    wanted: Sequence[Detection], given: Sequence[Detection]
) -> list[tuple[Detection, Detection]]:
    if len(wanted) == 1:
        return list(zip(wanted, given, strict=False))
    of_label: dict[str, list[Detection]] = {}
    for found in reversed(given):
        of_label.setdefault(found.label, []).append(found)
    return [(one, of_label[one.label].pop()) for one in wanted if of_label.get(one.label)]


def _iou(wanted: Detection, given: Detection) -> float:
    if wanted.mask is None:
        return float(metrics.box_iou(_box(wanted), _box(given)))
    if given.mask is None:
        return 0.0
    return metrics.mask_iou(coco_mask.decode(wanted.mask), coco_mask.decode(given.mask))


def _objects(text: str, decoder: MaskDecoder | None = None) -> list[Detection]:
    return parse_detections(text, _SIDE, _SIDE, decoder)


def _labelled(found: Detection) -> tuple[str, Box]:
    return found.label, _box(found)


def _box(found: Detection) -> Box:
    return found.y_min, found.x_min, found.y_max, found.x_max
