"""CIDEr-D, BLEU and ROUGE-L equal pycocoevalcap's, and behave at the edges."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.metrics import bleu, cider, cider_per_item, rouge_l
from paliflow.tests.metrics.references import load

OFFICIAL = load("captions.json")
REFERENCES = OFFICIAL["references"]
HYPOTHESES = OFFICIAL["hypotheses"]

WORDS = st.lists(st.sampled_from(["a", "red", "dog", "runs", "by"]), max_size=12).map(" ".join)
CORPORA = st.dictionaries(
    st.integers(), st.tuples(st.lists(WORDS, min_size=1, max_size=3), WORDS), min_size=1, max_size=6
).map(lambda items: ({k: v[0] for k, v in items.items()}, {k: v[1] for k, v in items.items()}))
Corpus = tuple[dict[int, list[str]], dict[int, str]]


def test_cider_equals_the_official_score() -> None:
    assert cider(REFERENCES, HYPOTHESES) == pytest.approx(OFFICIAL["CIDEr"], abs=1e-9)


def test_cider_of_each_item_equals_the_official_score() -> None:
    scores = cider_per_item(REFERENCES, HYPOTHESES)
    assert list(scores) == list(REFERENCES)
    assert list(scores.values()) == pytest.approx(OFFICIAL["CIDEr_per_item"], abs=1e-9)


def test_bleu_equals_the_official_scores() -> None:
    assert bleu(REFERENCES, HYPOTHESES) == pytest.approx(OFFICIAL["BLEU"], abs=1e-12)


def test_rouge_l_equals_the_official_score() -> None:
    assert rouge_l(REFERENCES, HYPOTHESES) == pytest.approx(OFFICIAL["ROUGE_L"], abs=1e-12)


def test_captions_equal_to_their_only_reference_score_full_marks() -> None:
    captions = {i: texts[0] for i, texts in REFERENCES.items()}
    alone = {i: [text] for i, text in captions.items()}
    assert cider(alone, captions) == pytest.approx(10)
    assert bleu(alone, captions) == pytest.approx([1, 1, 1, 1])
    assert rouge_l(alone, captions) == 1


def test_captions_that_say_nothing_score_nothing() -> None:
    silent = dict.fromkeys(REFERENCES, "")
    assert cider(REFERENCES, silent) == 0
    assert bleu(REFERENCES, silent) == [0, 0, 0, 0]
    assert rouge_l(REFERENCES, silent) == 0


def test_the_order_of_items_does_not_matter() -> None:
    backwards = dict(reversed(HYPOTHESES.items()))
    assert cider_per_item(REFERENCES, backwards) == cider_per_item(REFERENCES, HYPOTHESES)


def test_a_single_item_has_no_informative_words() -> None:
    assert cider({1: ["a red dog runs"]}, {1: "a red dog runs"}) == 0


def test_unicode_captions_are_scored() -> None:
    captions = {
        "a": "İstanbul'da köpek koşuyor ß",
        "b": "犬が走る 写真 東京 夜",
        "c": "😀 ½ café 5€",
    }
    alone = {i: [text] for i, text in captions.items()}
    assert cider(alone, captions) == pytest.approx(10)


@given(CORPORA)
def test_scores_stay_in_range(corpus: Corpus) -> None:
    references, hypotheses = corpus
    assert all(-1e-9 <= score <= 10 + 1e-9 for score in cider_per_item(*corpus).values())
    assert all(0 <= score <= 1 + 1e-9 for score in bleu(references, hypotheses))
    assert 0 <= rouge_l(references, hypotheses) <= 1 + 1e-9


@given(CORPORA)
def test_a_further_reference_never_lowers_rouge_l(corpus: Corpus) -> None:
    references, hypotheses = corpus
    more = {i: [*texts, "two dogs"] for i, texts in references.items()}
    assert rouge_l(more, hypotheses) >= rouge_l(references, hypotheses) - 1e-12


@pytest.mark.parametrize("score", [cider, cider_per_item, bleu, rouge_l])
@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ({}, {}, "references is empty"),
        ({1: ["a"]}, {2: "a"}, "2 are in only one of them: 1, 2"),
        ({1: ["a"], 2: ["b"]}, {1: "a"}, "same ids"),
        ({1: []}, {1: "a"}, r"references\[1\] is \[\]"),
        ({"x": "a dog"}, {"x": "a dog"}, r"references\['x'\] is 'a dog'"),
    ],
)
def test_inputs_that_cannot_be_scored_are_refused(
    score: object, references: object, hypotheses: object, message: str
) -> None:
    assert callable(score)
    with pytest.raises(ValueError, match=message):
        score(references, hypotheses)


@pytest.mark.parametrize("score", [cider, bleu, rouge_l])
def test_huge_captions_cost_little(score: object) -> None:
    assert callable(score)
    huge = {1: "a dog " * 50_000, 2: "red " * 50_000}
    start = time.process_time()
    score({key: [text, text[::-1]] for key, text in huge.items()}, huge)
    assert time.process_time() - start < 10  # seconds; word by word it is an hour


@given(WORDS, WORDS)
def test_rouge_l_counts_the_longest_common_subsequence(reference: str, hypothesis: str) -> None:
    said, wanted = hypothesis.split(" "), reference.split(" ")
    row = [0] * (len(said) + 1)
    for x in wanted:
        above, row = row, [0]
        for j, y in enumerate(said):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
    precision, recall = row[-1] / len(said), row[-1] / len(wanted)
    score = 2.44 * precision * recall / (recall + 1.44 * precision) if row[-1] else 0
    assert rouge_l({1: [reference]}, {1: hypothesis}) == pytest.approx(score)
