"""A training over hosts, faked on a CPU, of which one is lost."""

from pathlib import Path

import pytest

from paliflow.tests.jobs.fleet.running_slices import outcome

pytestmark = pytest.mark.slow  # a Ray cluster of its own


def test_a_training_that_loses_a_host_has_saved_before_and_goes_on_with_the_other(
    tmp_path: Path,
) -> None:
    _, found = outcome(tmp_path, "lost worker")
    elastic = found["elastic"]
    assert elastic["workers"] == ["2 from 0", "1 from 5"]  # the spec saves the last step alone
    assert elastic["losses"] == pytest.approx(found["one"]["losses"], rel=1e-4)
