"""The report's view of an answer that is one of some choices."""

from typing import Any

from paliflow.jobs.report.answers import SHOWN_CHOICES, answer

ROW: dict[str, Any] = {
    "task": "answer",
    "prompt": "answer en which?",
    "text": "a",
    "status": "ok",
    "error": None,
    "finished": True,
    "logprob": -1.0,
    "token_count": 2,
    "detections": None,
}


def test_choices_are_shown_from_the_likeliest_on_and_score_its_probability() -> None:
    choices = [{"label": label, "probability": 0.5**n} for n, label in enumerate("abcdef", 1)]
    shown = answer(ROW | {"choices": choices, "choices_mass": 0.25}, {})
    assert shown["choices"] == choices[:SHOWN_CHOICES]
    assert (shown["more_choices"], shown["mass"], shown["score"]) == (2, 0.25, 0.5)
    sure = answer(ROW | {"choices": choices, "confidence": 0.75, "accepted": False}, {})
    assert (sure["score"], sure["calibrated"], sure["accepted"]) == (0.75, True, False)
    # A row of an older version has no such columns, and is scored by its tokens.
    older = answer(ROW, {})
    assert (older["choices"], older["more_choices"]) == ([], 0)
    assert (older["calibrated"], older["accepted"]) == (False, None)
    assert 0.6 < older["score"] < 0.61
