"""What reading takes of a core: read off the table, between its figures and beyond them."""

import pytest

from paliflow.configs.reading import ReadingCosts, reading_costs


def test_milliseconds_are_interpolated_and_grow_in_proportion_beyond_the_largest() -> None:
    points = {0.5: 2.0, 2.0: 8.0, 12.0: 28.0}
    table = {224: {"exact": points}, 896: {"exact": {1.0: 10.0}}}
    costs = ReadingCosts.parse({"measured": "here", "command": "x", "jpeg": table})
    for megapixels, wanted in ((0.1, 2.0), (0.5, 2.0), (1.25, 5.0), (7.0, 18.0), (24.0, 56.0)):
        assert costs.milliseconds("exact", 224, megapixels) == pytest.approx(wanted)
    assert costs.milliseconds("exact", 56, 2.0) == costs.milliseconds("exact", 336, 2.0) == 8.0
    assert costs.milliseconds("exact", 500, 3.0) == 30.0


def test_measured_costs_are_there_for_both_ways_and_fast_is_faster() -> None:
    costs = reading_costs()
    for side in (224, 448):
        for megapixels in (5, 12, 48):
            fast, exact = (costs.milliseconds(way, side, megapixels) for way in ("fast", "exact"))
            assert fast < exact
