"""Models and trainings over the hosts of a TPU slice, faked on a CPU, of which hosts are lost."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from paliflow.tests.jobs.fleet.running_slices import outcome
from paliflow.tests.jobs.fleet.slice_runs import EVENTS

pytestmark = pytest.mark.slow  # a Ray cluster of its own, for minutes

IMAGES = 2 * len(EVENTS) + 4  # one actor has two parts in hand, which both may be done at an event
FEW = 8


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the runs have printed, and what came of them."""
    folder = tmp_path_factory.mktemp("slices")
    sample = sorted(Path("dags/sample").glob("scene_*"))
    for name, count in (("images", IMAGES), ("few", FEW)):
        (folder / name).mkdir()
        for number in range(count):
            source = sample[number % len(sample)]
            shutil.copy(source, folder / name / f"{number:02}{source.suffix}")
        (folder / name / "broken.png").write_bytes(b"not an image")
    return outcome(folder, "disturbances", "losses of hosts")


def few(rows: list[Any]) -> list[Any]:
    """Those of the images in the smaller folder."""
    return [*rows[: 3 * FEW], *rows[-3:]]


def test_a_model_over_two_hosts_answers_as_one_on_a_host(ran: tuple[str, dict[str, Any]]) -> None:
    _, found = ran
    assert len(found["host"]["rows"]) == 3 * (IMAGES + 1)
    assert sum(row["status"] == "error" for row in found["host"]["rows"]) == 3
    assert found["copies"]["rows"] == few(found["host"]["rows"])


def test_whichever_process_is_killed_or_stopped_all_are_replaced_and_no_row_differs(
    ran: tuple[str, dict[str, Any]],
) -> None:
    _, found = ran
    captions = [row for row in found["host"]["rows"] if row["prompt"] == "caption en"]
    assert found["disturbed"]["rows"] == captions
    assert len(found["seconds"]) == len(EVENTS)
    assert max(found["seconds"]) < 60
    assert found["left"] == []


def test_hosts_that_a_tenant_holds_are_awaited_aloud(ran: tuple[str, dict[str, Any]]) -> None:
    said, _ = ran
    assert "waiting: actors do not start: each takes CPU 0.5, TPU 4 of each of the 2 hosts" in said


def test_a_drained_host_loses_no_input_and_condemns_none(ran: tuple[str, dict[str, Any]]) -> None:
    _, found = ran
    assert found["drained"]["rows"] == few(found["host"]["rows"])
    assert found["drained"]["preemptions"] == 1


def test_a_training_over_two_hosts_has_the_losses_of_one(ran: tuple[str, dict[str, Any]]) -> None:
    _, found = ran
    one, two = found["one"], found["two"]
    assert len(one["losses"]) == 12
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert (one["workers"], two["workers"]) == (["1 from 0"], ["2 from 0"])
