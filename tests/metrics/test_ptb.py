"""Tokenisation equals that of pycocoevalcap's PTBTokenizer."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.metrics import tokenize
from paliflow.tests.metrics.references import load

CAPTIONS = load("captions.json")
PAIRS = [
    *load("ptb.json")["tokenized"],
    *(
        pair
        for key, texts in CAPTIONS["references"].items()
        for pair in zip(texts, CAPTIONS["tokenized_references"][key], strict=True)
    ),
    *zip(CAPTIONS["hypotheses"].values(), CAPTIONS["tokenized_hypotheses"].values(), strict=True),
]


def test_every_reference_caption_is_tokenised_as_stanford_does() -> None:
    differing = [(text, tokens) for text, tokens in PAIRS if tokenize(text) != tokens]
    assert len(PAIRS) > 180
    assert not differing


@pytest.mark.parametrize("text", ["", " ", "\n", "...", "-- !", "😀", "\N{ZERO WIDTH SPACE}"])
def test_a_caption_without_words_has_no_tokens(text: str) -> None:
    assert tokenize(text) == ""


def test_a_line_break_is_a_space() -> None:
    assert tokenize("a dog\nruns\r\n") == tokenize("a dog runs")


@given(st.text())
def test_any_text_becomes_lower_case_tokens_between_single_spaces(text: str) -> None:
    tokens = tokenize(text).split(" ")
    assert tokens == [""] or all(tokens)
    assert all(token == token.lower() for token in tokens)


@given(st.lists(st.from_regex(r"[a-z]{5,9}", fullmatch=True), min_size=1))
def test_plain_words_are_left_alone(words: list[str]) -> None:
    assert tokenize(" ".join(words)) == " ".join(words)


@given(st.text("aA1.,:'\N{RIGHT SINGLE QUOTATION MARK}-/$&n tsd", max_size=200))
def test_awkward_punctuation_loses_no_letter_or_digit(text: str) -> None:
    kept = [c for c in tokenize(text) if c.isalnum()]
    assert kept == [c.lower() for c in text if c.isalnum()]


@pytest.mark.parametrize("piece", ["a__", "a+", "+", "a+a@", "a@a.", "a.a..", "<a ", "1,1-", "n'"])
def test_a_hostile_caption_is_tokenised_in_linear_time(piece: str) -> None:
    start = time.process_time()
    tokenize(piece * 100_000)
    assert time.process_time() - start < 2  # seconds; quadratic it is twice that and more
