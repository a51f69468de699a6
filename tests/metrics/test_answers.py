"""Answer scores equal the official evaluators', and behave at the edges."""

import time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from paliflow.metrics import (
    anls,
    count_from_word,
    count_match,
    exact_match,
    relaxed_match,
    simple_vqa_accuracy,
    vqa_accuracy,
    vqa_normalize,
)
from paliflow.metrics.limits import MAX_CHARACTERS
from paliflow.tests.metrics.references import load

OFFICIAL = load("qa_metrics.json")
ANSWERS = st.text("aAn2 ,.'-?", max_size=8) | st.sampled_from(["two", "dont", "the dog", "é", "🐶"])
TEN = st.lists(ANSWERS, min_size=10, max_size=10)


def test_vqa_accuracy_equals_the_official_scores() -> None:
    cases = OFFICIAL["vqav2"]
    assert [vqa_accuracy(case["answer"], case["answers"]) for case in cases] == pytest.approx(
        [case["accuracy"] for case in cases], abs=1e-12
    )


@pytest.mark.parametrize(("answer", "normalized"), OFFICIAL["vqav2_normalised"].items())
def test_vqa_normalisation_equals_the_official_text(answer: str, normalized: str) -> None:
    assert vqa_normalize(answer) == normalized


@pytest.mark.parametrize("case", OFFICIAL["anls"], ids=lambda case: case["prediction"])
def test_anls_equals_the_official_score(case: dict[str, str]) -> None:
    assert anls(case["target"], case["prediction"]) == pytest.approx(case["anls"], abs=1e-12)


@pytest.mark.parametrize("case", OFFICIAL["chartqa"], ids=lambda case: case["prediction"])
def test_relaxed_match_equals_the_official_verdict(case: dict[str, Any]) -> None:
    assert relaxed_match(case["target"], case["prediction"]) is case["match"]


@pytest.mark.parametrize(("word", "count"), OFFICIAL["tallyqa_number_words"].items())
def test_number_words_become_the_official_digits(word: str, count: str) -> None:
    assert count_from_word(word) == count
    assert count_match(word, count)


@pytest.mark.parametrize(
    ("lost", "restored"),
    [
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),
        ("yall'll", "y'all'll"),
        ("somebody'd", "somebodyd"),
        ("lets", "lets"),
        ("eleven", "eleven"),
    ],
)
def test_one_lost_apostrophe_is_restored_where_the_official_table_does(
    lost: str, restored: str
) -> None:
    assert vqa_normalize(lost) == restored


def test_unanimous_people_are_compared_without_normalisation() -> None:
    assert vqa_accuracy("two", ["2"] * 10) == 0
    assert vqa_accuracy("two", ["2"] * 9 + ["3"]) == 1


def test_leaving_out_who_agrees_costs_the_third_vote() -> None:
    people = ["dog"] * 3 + ["cat"] * 7
    assert vqa_accuracy("dog", people) == pytest.approx(0.9)
    assert simple_vqa_accuracy("dog", people) == 1


def test_simple_vqa_accuracy_counts_exact_agreement_by_thirds() -> None:
    assert simple_vqa_accuracy("dog", ["dog", "dog", "Dog", "a dog"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("score", [vqa_accuracy, simple_vqa_accuracy])
@pytest.mark.parametrize("answers", [[], "yes"])
def test_answers_must_be_a_list_with_someone_in_it(score: object, answers: object) -> None:
    assert callable(score)
    with pytest.raises(ValueError, match=f"answers is {answers!r}".replace("[]", r"\[\]")):
        score("yes", answers)


@given(ANSWERS, TEN)
def test_vqa_scores_stay_in_range_whoever_answers_first(answer: str, people: list[str]) -> None:
    score = vqa_accuracy(answer, people)
    assert 0 <= score <= 1
    assert vqa_accuracy(answer, people[::-1]) == score
    assert 0 <= simple_vqa_accuracy(answer, people) <= 1


@given(ANSWERS)
def test_what_everyone_said_scores_full_marks(answer: str) -> None:
    assert vqa_accuracy(answer, [answer] * 10) == 1
    assert simple_vqa_accuracy(answer, [answer] * 10) == 1
    assert anls(answer, answer) == 1
    assert relaxed_match(answer, answer)
    assert exact_match(answer, answer)
    assert count_match(answer, answer)


@given(st.text(max_size=12))
def test_normalising_leaves_no_article_tab_or_line_break(answer: str) -> None:
    words = vqa_normalize(answer).split(" ")
    assert not {"a", "an", "the"} & set(words)
    assert words == [""] or all(words)


@given(ANSWERS, ANSWERS)
def test_anls_is_symmetric_and_0_or_above_a_half(a: str, b: str) -> None:
    assert anls(a, b) == anls(b, a)
    assert anls(a, b) == 0 or 0.5 < anls(a, b) <= 1


def test_anls_counts_case_and_the_threshold_is_exclusive() -> None:
    assert anls("ab", "aB") == 0
    assert anls("ab", "aB", threshold=0.6) == 0.5
    assert anls("", "") == 1
    assert anls("", "a") == anls("a", "") == 0


@given(st.floats(0.01, 1e6), st.floats(-0.2, 0.2))
def test_relaxed_match_accepts_five_percent_and_no_more(target: float, error: float) -> None:
    assume(abs(abs(error) - 0.05) > 1e-9)
    assert relaxed_match(str(target), str(target * (1 + error))) is (abs(error) < 0.05)


@pytest.mark.parametrize("text", ["nan", "inf", "-", "%", "", "1,000", "²"])
def test_odd_numbers_match_only_themselves(text: str) -> None:
    assert relaxed_match(text, text)
    assert not relaxed_match(text, "7")
    assert not relaxed_match("7", text)


def test_counts_in_words_and_digits_are_the_same() -> None:
    assert count_match("Three", "3")
    assert not count_match("three", "4")
    assert not exact_match("three", "3")


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_anls_equals_the_table_of_edit_distances(a: str, b: str) -> None:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    assume(a or b)
    assert anls(a, b, threshold=2) == (1 - row[-1] / max(len(a), len(b)) if a else 0)


def test_anls_of_huge_texts_costs_little_and_looks_at_their_beginning() -> None:
    whole = "abcd" * (MAX_CHARACTERS // 4)
    start = time.process_time()
    assert anls(whole + "x" * 200_000, whole + "y" * 200_000) == 1
    assert anls("ab" * 100_000, "cd" * 100_000) == 0
    assert time.process_time() - start < 10  # seconds; character by character it is hours
