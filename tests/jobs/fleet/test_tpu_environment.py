"""The environment of a process on a TPU host, for each way to have chips of it."""

import pytest

from paliflow.configs.base import SpecError
from paliflow.jobs.fleet.tpu_environment import tpu_environment

ALONE = {
    "TPU_PROCESS_BOUNDS": "1,1,1",
    "TPU_HOST_BOUNDS": "1,1,1",
    "TPU_WORKER_ID": "0",
    "CLOUD_TPU_TASK_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_SKIP_MDS_QUERY": "1",
}
ONE_CHIP = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_CHIPS_PER_HOST_BOUNDS": "1,1,1"}
HOST = {
    "TPU_CHIPS_PER_PROCESS_BOUNDS": "2,2,1",
    "TPU_CHIPS_PER_HOST_BOUNDS": "2,2,1",
    "TPU_VISIBLE_CHIPS": "0,1,2,3",
    "TPU_TOPOLOGY_WRAP": "false,false,false",
}


def labels(topology: str | None) -> dict[str, str]:
    return {"ray.io/tpu-topology": topology} if topology else {}


@pytest.mark.parametrize(
    ("topology", "asked", "there", "expected"),
    [
        pytest.param("2x2", 4, 4, {}, id="all of a single host"),
        pytest.param("2x4", 8, 8, {}, id="all of a single host with eight chips"),
        pytest.param("2x2x1", 4, 4, {}, id="all of a single host in three dimensions"),
        pytest.param("1x1", 1, 1, {}, id="the one chip of a host"),
        pytest.param("2x4", 1, 8, {}, id="a chip of a single host, which Ray sees to"),
        pytest.param("2x2", 2, 4, {}, id="two chips of a single host, which Ray sees to"),
        pytest.param(None, 4, 4, {}, id="a host without a label"),
        pytest.param("4x4", 0, 4, {}, id="no chip"),
        pytest.param("4x4", 4, 4, ALONE | HOST | {"TPU_TOPOLOGY": "2x2"}, id="a host of several"),
        pytest.param(
            "2x2x2", 4, 4, ALONE | HOST | {"TPU_TOPOLOGY": "2x2x1"}, id="the same in three"
        ),
        pytest.param("4x4", 1, 4, ALONE | ONE_CHIP, id="a chip of a host of several"),
    ],
)
def test_a_process_is_told_that_it_is_alone_where_its_slice_has_more(
    topology: str | None, asked: float, there: float, expected: dict[str, str]
) -> None:
    given = {"TPU_VISIBLE_CHIPS": "3", "TPU_WORKER_ID": "2"}
    assert tpu_environment(labels(topology), asked, there, given) == expected


def test_an_address_of_many_is_replaced_by_its_own() -> None:
    given = {"TPU_PROCESS_ADDRESSES": "a-0:8471,a-1:8471"}
    found = tpu_environment(labels("2x2x2"), 4, 4, given)
    assert found["TPU_PROCESS_ADDRESSES"] == "localhost:8471"


@pytest.mark.parametrize(
    ("topology", "asked", "there", "reason"),
    [
        ("2x4", 4, 8, "which four of a host's eight chips .*; ask for 1, 2 or 8"),
        (None, 4, 8, "which four of a host's eight chips"),
        ("4x4", 2, 4, "nobody has seen a process take 2 of the 4 chips"),
        ("4x4", 8, 8, "alone on a host of eight chips"),
    ],
)
def test_a_part_of_a_host_that_nobody_has_seen_work_is_refused(
    topology: str | None, asked: float, there: float, reason: str
) -> None:
    with pytest.raises(SpecError, match=rf"^accelerators_per_actor=.*{reason}"):
        tpu_environment(labels(topology), asked, there, {})
