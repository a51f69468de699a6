"""The metrics that an evaluation may choose, by name: one line of `METRICS` each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paliflow.metrics.answers import (
    anls,
    count_match,
    exact_match,
    relaxed_match,
    simple_vqa_accuracy,
    vqa_accuracy,
    vqa_normalize,
)
from paliflow.metrics.benchmarks import (
    all_right,
    anls_rrc,
    bleu_shares,
    character_errors,
    pope_answer,
    right_characters,
    science_qa_answer,
)
from paliflow.metrics.bootstrap import ratio
from paliflow.metrics.calibration import precision_shares
from paliflow.metrics.captions import cider_per_item, rouge_l_per_item
from paliflow.metrics.objects import (
    DetectionPart,
    Object,
    RankedBoxes,
    detection_parts,
    overlap_parts,
)

_PEOPLE = 4
"""As many have to agree for a VQA accuracy of 1."""


@dataclass(frozen=True)
class Answers:
    """The answers to a set of examples: sequences of one length N, and not empty."""

    prompts: Sequence[str]
    """What was asked."""
    references: Sequence[Sequence[str]]
    """What is right, at least one text of each example."""
    texts: Sequence[str]
    """What was answered."""
    boxes: Callable[[str], Sequence[Object]]
    """Finds the objects in a text, without masks."""
    objects: Callable[[str, str], Sequence[Object]]
    """Finds the objects in an answer to a prompt, with masks where the prompt asks for them."""
    details: Sequence[Mapping[str, Any]] = ()
    """What a benchmark says of its rows besides; one of each, or none."""
    overlap: Callable[[str, Mapping[str, Any], bool], float] | None = None
    """The IoU of the region in an answer with that in a row's details: of masks, or of boxes."""
    flags: Sequence[Mapping[str, bool]] = ()
    """Of each answer, by attribute, e.g. `toxicity`, whether a scorer flags it; nothing of what it
    could not score. One of each answer, or none where there is no scorer."""
    ranked: Sequence[RankedBoxes] = ()
    """Of each answer its boxes with their scores; none where no metric ranks them."""
    coco_shares: Callable[[float | None], NDArray[np.float64]] | None = None
    """What each answer adds to COCO's average precision, which is their mean: at an IoU, or over
    COCO's ten."""
    likelihoods: Sequence[tuple[float, int]] = ()
    """Of each example the negative log-probability of its right answers, and their tokens; 0 and 0
    where it is not known. One of each, or none where no metric looks at them."""


class Score(NamedTuple):
    """The parts of a figure, one an example; the figure is a ratio of their sums."""

    numerators: NDArray[np.float64]  # [N]
    denominators: NDArray[np.float64]  # [N]

    @property
    def figure(self) -> float:
        """sum(numerators) / sum(denominators); 1 of nothing sought and nothing found."""
        return float(ratio(self.numerators.sum(), self.denominators.sum()))


@dataclass(frozen=True)
class Metric:
    """A way to score the answers to a set of examples."""

    name: str
    """As specs choose it; the figure is called `<set>/<name>`."""
    tasks: frozenset[str]
    """The tasks whose sets it scores where the spec chooses no metrics."""
    score: Callable[[Answers], Score]
    of_set: bool = False
    """Whether an example's part is no score of its own, as in BLEU."""
    of_region: bool = False
    """Whether rows must say which region is right, as some benchmarks' do."""
    by_scorer: bool = False
    """Whether answers are judged by themselves: what has no answer does not count then."""
    by_score: bool = False
    """Whether boxes are ranked by how sure the model is of them."""
    by_likelihood: bool = False
    """Whether the model is asked how likely the right answers are, whatever it answers."""
    lower_is_better: bool = False

    @property
    def of_texts(self) -> bool:
        """Whether it looks at nothing but what was asked, answered and right."""
        return not (self.of_region or self.by_scorer or self.by_score or self.by_likelihood)


def _mean(values: Sequence[float]) -> Score:
    """The score whose figure is the mean of values, one an example."""
    return Score(np.array(values, np.float64), np.ones(len(values)))


def _sums(parts: Sequence[tuple[float, float]]) -> Score:
    """The score of numerators and denominators, a pair an example."""
    numerators, denominators = np.array(parts, np.float64).T
    return Score(numerators, denominators)


def of_people(compare: Callable[[str, Sequence[str]], float]) -> Callable[[Answers], Score]:
    """A metric's `score`: the mean of comparisons of each answer with all its references."""

    def score(answers: Answers) -> Score:
        pairs = zip(answers.texts, answers.references, strict=True)
        return _mean([compare(text, references) for text, references in pairs])

    return score


def best_of(
    compare: Callable[[str, str], float], *, lower: bool = True
) -> Callable[[Answers], Score]:
    """A metric's `score`: the mean of the best comparison of each answer with a reference.

    Surrounding space never counts.

    Args:
        compare: takes a reference and the answer.
        lower: whether the two are compared in lower case.
    """

    def plain(text: str) -> str:
        return text.strip().lower() if lower else text.strip()

    return of_people(lambda text, right: max(float(compare(plain(r), plain(text))) for r in right))


def of_captions(
    per_item: Callable[[Mapping[int, Sequence[str]], Mapping[int, str]], Mapping[int, float]],
) -> Callable[[Answers], Score]:
    """A metric's `score`: the mean of the scores of captions, which need the whole set."""

    def score(answers: Answers) -> Score:
        of_each = per_item(dict(enumerate(answers.references)), dict(enumerate(answers.texts)))
        return _mean(list(of_each.values()))

    return score


def _vqa_accuracy(text: str, right: Sequence[str]) -> float:
    if len(right) >= _PEOPLE:
        return vqa_accuracy(text, right)
    return float(vqa_normalize(text) in map(vqa_normalize, right))


def _simple_vqa_accuracy(text: str, right: Sequence[str]) -> float:
    return simple_vqa_accuracy(text.strip(), [each.strip() for each in right])


def _any_of(
    compare: Callable[[str, str], float], *, lower: bool = False
) -> Callable[[Answers], Score]:
    """As `best_of`, of the texts as they are: surrounding space counts, as in big_vision."""

    def plain(text: str) -> str:
        return text.lower() if lower else text

    return of_people(lambda text, right: max(float(compare(plain(r), plain(text))) for r in right))


def _pope(target: str, prediction: str) -> bool:
    return target == prediction.lower()


def _pope_official(target: str, prediction: str) -> bool:
    return target == pope_answer(prediction)


def _science_qa(target: str, prediction: str) -> bool:
    given = science_qa_answer(prediction)
    return given is not None and given == science_qa_answer(target)


def _paired_exact(answers: Answers) -> Score:
    right = _any_of(exact_match)(answers).numerators.tolist()
    details = answers.details or [{}] * len(right)
    clusters = [str(own.get("cluster", n)) for n, own in enumerate(details)]
    numerators, denominators = all_right(right, clusters)
    return Score(np.array(numerators), np.array(denominators))


def _bleu(order: int) -> Metric:
    def score(answers: Answers) -> Score:
        return _mean(bleu_shares(answers.references, answers.texts, order).tolist())

    return Metric(f"bleu_{order}", frozenset(), score, of_set=True)


def _character_accuracy(answers: Answers) -> Score:
    pairs = zip(answers.references, answers.texts, strict=True)
    return _sums([right_characters(right, text) for right, text in pairs])


def _character_error_rate(answers: Answers) -> Score:
    pairs = zip(answers.references, answers.texts, strict=True)
    return _sums([character_errors(right, text) for right, text in pairs])


def _perplexity(answers: Answers) -> Score:
    """Each example's share is the figure plus its influence on it, as in `bleu_shares`."""
    nats, tokens = np.array(answers.likelihoods, np.float64).reshape(-1, 2).T
    if not (total := tokens.sum()):
        return Score(np.zeros(len(answers.texts)), np.zeros(len(answers.texts)))
    mean = nats.sum() / total
    influence = (nats - mean * tokens) * len(tokens) / total
    return Score(np.exp(mean) * (1 + influence), np.ones(len(tokens)))


def _coco(name: str, iou: float | None) -> Metric:
    def score(answers: Answers) -> Score:
        assert answers.coco_shares
        shares = answers.coco_shares(iou)
        return Score(shares, np.ones(len(shares)))

    return Metric(name, frozenset(), score, of_set=True, by_score=True)


def _detections(part: DetectionPart) -> Callable[[Answers], Score]:
    def score(answers: Answers) -> Score:
        pairs = zip(answers.references, answers.texts, strict=True)
        found = [
            ([answers.boxes(each) for each in right], answers.boxes(text)) for right, text in pairs
        ]
        return _sums(detection_parts(found, part))

    return score


def _average_precision(answers: Answers) -> Score:
    scores = [score for own in answers.ranked for score in own.scores]
    shares = precision_shares(scores, [hit for own in answers.ranked for hit in own.right])
    edges = np.cumsum([0, *(len(own.scores) for own in answers.ranked)])
    of_each = [shares[first:last].sum() for first, last in pairwise(edges.tolist())]
    return Score(np.array(of_each), np.array([own.wanted for own in answers.ranked], np.float64))


def _mean_iou(answers: Answers) -> Score:
    triples = zip(answers.prompts, answers.references, answers.texts, strict=True)
    return _sums(
        [
            overlap_parts(
                [answers.objects(prompt, each) if each.strip() else None for each in right],
                answers.objects(prompt, text),
            )
            for prompt, right, text in triples
        ]
    )


def _region(name: str, *, masks: bool = False, least: float | None = None) -> Metric:
    """The mean of overlaps with the regions that rows describe, or the share that is large."""

    def score(answers: Answers) -> Score:
        assert answers.overlap
        pairs = zip(answers.texts, answers.details, strict=True)
        overlaps = [answers.overlap(text, details, masks) for text, details in pairs]
        return _mean([each if least is None else float(each >= least) for each in overlaps])

    return Metric(f"region_{name}", frozenset(), score, of_region=True)


def _without(attribute: str) -> Metric:
    """The share of scored answers that a scorer does not flag with an attribute."""

    def score(answers: Answers) -> Score:
        flags = [own.get(attribute) for own in answers.flags] or [None] * len(answers.texts)
        scored = np.array([flag is not None for flag in flags], np.float64)
        return Score(np.array([flag is False for flag in flags], np.float64), scored)

    return Metric(f"without_{attribute}", frozenset(), score, by_scorer=True)


def _metric(name: str, score: Callable[[Answers], Score], *tasks: str) -> Metric:
    return Metric(name, frozenset(tasks), score)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric("exact_match", best_of(exact_match, lower=False), "ocr"),
        _metric("vqa_accuracy", of_people(_vqa_accuracy), "answer"),
        _metric("simple_vqa_accuracy", of_people(_simple_vqa_accuracy)),
        _metric("anls", best_of(anls), "ocr"),
        _metric("character_accuracy", _character_accuracy),
        Metric("character_error_rate", frozenset(), _character_error_rate, lower_is_better=True),
        _metric("relaxed_match", best_of(relaxed_match)),
        _metric("count_match", best_of(count_match)),
        _metric("bv_exact", _any_of(exact_match)),
        _metric("paired_exact", _paired_exact),
        _metric("bv_exact_lower", _any_of(exact_match, lower=True)),
        _metric("bv_anls", _any_of(anls, lower=True)),
        _metric("anls_rrc", of_people(lambda text, right: anls_rrc(right, text))),
        _metric("bv_count", _any_of(count_match)),
        _metric("pope", _any_of(_pope)),
        _metric("pope_official", _any_of(_pope_official)),
        _metric("science_qa", _any_of(_science_qa)),
        _metric("cider", of_captions(cider_per_item), "caption"),
        *(_bleu(order) for order in (1, 2, 3, 4)),
        _metric("rouge_l", of_captions(rouge_l_per_item)),
        _metric(
            "detection_f1", _detections(lambda hit, want, got: (2 * hit, want + got)), "detect"
        ),
        _metric("detection_precision", _detections(lambda hit, want, got: (hit, got))),
        _metric("detection_recall", _detections(lambda hit, want, got: (hit, want))),
        Metric("detection_ap", frozenset(), _average_precision, of_set=True, by_score=True),
        _coco("coco_ap", None),
        _coco("coco_ap_50", 0.5),
        _metric("mean_iou", _mean_iou, "segment"),
        _region("mask_iou", masks=True),
        _region("box_50", least=0.5),
        _region("box_75", least=0.75),
        _without("toxicity"),
        _without("identity_attack"),
        _without("insult"),
        _without("threat"),
        _without("profanity"),
        Metric(
            *("perplexity", frozenset(), _perplexity),
            of_set=True,
            by_likelihood=True,
            lower_is_better=True,
        ),
    )
}
"""By name; specs know the same names (`configs.examples.MetricName`), which a test compares.

- `exact_match`, `anls`, `relaxed_match`, `count_match`: the best of the right answers. Surrounding
  space never counts; case does for `exact_match` alone.
- `vqa_accuracy`: the official rule, four answers or more being several people's. Of fewer, which
  that rule never scores 1: whether one is the same in the official normal form.
- `simple_vqa_accuracy`: a third for each person who said this, in this case; at most 1.
- `bv_exact`, `bv_exact_lower`, `bv_anls`, `bv_count`: as big_vision's evaluators compare, any right
  answer, surrounding space included.
- `paired_exact`: whether all rows that a benchmark puts together are right, exactly; of other sets
  each row is by itself.
- `character_accuracy`: of all characters wanted, how many are right: 1 less the character error
  rate, but no answer's is below 0.
- `character_error_rate`: the edits that all answers need, over all characters wanted; of several
  right answers the one that needs the fewest for its length. Lower is better, more than 1 possible.
- `anls_rrc`: as DocVQA's server computes ANLS.
- `pope`, `science_qa`: big_vision's parsing of yes and no, and of `The answer is B.`;
  `pope_official`: POPE's own parsing.
- `bleu_1` to `bleu_4`: BLEU of the whole set; one caption's share of it means nothing by itself.
- `cider`, `rouge_l`: per caption; CIDEr weighs words by how common they are in the set's right
  answers, errors included, so that two models are weighed alike.
- `detection_precision`, `detection_recall`, `detection_f1`: the objects matched, over those given,
  those wanted, or the mean of the two; label and IoU of at least 0.5. Of several right answers the
  best. A model that finds nothing has a precision of 0.
- `detection_ap`: the average precision of all boxes of the set, ranked by their confidence, or
  where no calibration says it by the label's probability times that of the location; label and IoU
  of at least 0.5. A box's share of it means nothing by itself.
- `coco_ap`, `coco_ap_50`: COCO's average precision by pycocotools, the mean over labels of ten IoUs
  from 0.5 to 0.95, or of 0.5; boxes are ranked as in `detection_ap`, at most 100 of a label in an
  answer. Of several right answers the first.
- `mean_iou`: over the objects wanted, see `overlap_parts`. Masks are compared where the prompt asks
  for them, the right answer has a mask and there is a decoder; else boxes.
- `region_mask_iou`, `region_box_50`, `region_box_75`: as big_vision scores RefCOCO, of benchmarks
  whose rows have a mask: the mean IoU of the mask that an answer begins with, in the image's
  pixels, and the share of answers whose box has an IoU of at least 0.5 or 0.75. An answer that
  begins with no whole mask scores 0 in all three.
- `without_toxicity` and the like: the share of answers that the evaluation's scorer does not flag,
  of those that it could score; what is right says nothing here.
- `perplexity`: of all right answers under the model, each with its end: e to the mean of a token's
  negative log-probability. Lower is better. An example's share of it means nothing by itself.
"""


def metrics_of_task(task: str) -> tuple[str, ...]:
    """Returns the names of the metrics that score a task where nobody chooses others."""
    return tuple(metric.name for metric in METRICS.values() if task in metric.tasks)
