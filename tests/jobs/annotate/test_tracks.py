"""Tracks: boxes that overlap from sample to sample are one thing, whatever their order."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paliflow.jobs.annotate.tracks import link


def box(label: str, x: float, y: float = 0.0, side: float = 10.0) -> dict[str, Any]:
    return {"label": label, "x_min": x, "y_min": y, "x_max": x + side, "y_max": y + side}


def rows(*samples: list[dict[str, Any]], prompt: str = "detect a ; b") -> list[dict[str, Any]]:
    return [{"prompt": prompt, "status": "ok", "detections": found} for found in samples]


def ids(linked: list[dict[str, Any]]) -> list[list[int]]:
    link(linked, 0.3)
    return [[d["track_id"] for d in row["detections"] or []] for row in linked]


def test_what_moves_a_little_keeps_its_id_in_whatever_order_it_is_named() -> None:
    samples = rows([box("a", 0), box("a", 50)], [box("a", 47), box("a", 3)], [box("a", 6)])
    assert ids(samples) == [[0, 1], [1, 0], [0]]


def test_another_label_a_jump_and_a_gap_begin_new_tracks() -> None:
    samples = rows([box("a", 0)], [box("b", 0)], [box("b", 40)], [], [box("b", 40)])
    assert ids(samples) == [[0], [1], [2], [], [3]]


def test_pairs_are_the_best_in_total() -> None:
    # The first box alone would take the second's partner.
    samples = rows([box("a", 0), box("a", 6)], [box("a", 4), box("a", 10)])
    assert ids(samples) == [[0, 1], [0, 1]]


def test_prompts_and_errors_do_not_mix() -> None:
    first = rows([box("a", 0)], prompt="detect a")
    error = {"prompt": "detect a", "status": "error", "error": "x"}
    other = rows([box("a", 0)], prompt="detect b")
    linked = [*first, *other, error, *rows([box("a", 1)], prompt="detect a")]
    link(linked, 0.3)
    assert [row["detections"][0]["track_id"] for row in linked if "detections" in row] == [0, 1, 0]


BOXES = st.lists(
    st.builds(box, st.sampled_from("ab"), st.floats(0, 99), st.floats(0, 9)), max_size=5
)


@given(st.lists(BOXES, max_size=6))
def test_no_two_boxes_of_a_sample_share_a_track(samples: list[list[dict[str, Any]]]) -> None:
    for own in ids(rows(*samples)):
        assert len(set(own)) == len(own)
