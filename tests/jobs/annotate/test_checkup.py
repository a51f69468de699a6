"""`paliflow doctor`: each fault is found and said with its remedy."""

import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from paliflow.jobs.annotate.checkup import Finding, examine, judge_devices, judge_nodes
from paliflow.jobs.annotate.probes import PACKAGES, Devices, Node

DRIVER = {name: version(name) for name in PACKAGES}
NODE = Node("host-1", "n1", platform.python_version(), dict(DRIVER))
CHIPS = Devices("host-1", {"TPU": 4.0}, kind="TPU v5 lite", chips=4, flops=150e12)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (replace(NODE, python="3.9.1"), "host-1: Python 3.9.1, and the driver has"),
        (
            replace(NODE, packages={**DRIVER, "jax": "0.4.1"}),
            f"host-1: jax 0.4.1, and the driver has {DRIVER['jax']}; install paliflow[ray]",
        ),
        (
            replace(NODE, packages={**DRIVER, "flax": None}),
            f"host-1: flax is missing, and the driver has {DRIVER['flax']}; install paliflow[ray]",
        ),
        (
            replace(NODE, storage="not found"),
            "host-1: gs://b cannot be written and read: not found; make the bucket",
        ),
        ("host-2: it cannot run Paliflow: no module", "install paliflow[ray] there"),
    ],
)
def test_a_node_that_differs_is_a_fault_with_its_remedy(node: Node | str, said: str) -> None:
    (finding,) = judge_nodes([node], DRIVER, "gs://b")
    assert finding.grade == "fault"
    assert said in finding.text


def test_a_node_like_the_driver_is_fine() -> None:
    (finding,) = judge_nodes([NODE], DRIVER, "gs://b")
    assert finding.grade == "ok"
    assert finding.text.endswith("the driver's packages, gs://b can be written and read")


@pytest.mark.parametrize(
    ("devices", "grade", "said"),
    [
        (CHIPS, "ok", "TPU 4 has 4 x TPU v5 lite, 150 TFLOP/s in bfloat16, 76% of its peak"),
        (replace(CHIPS, flops=20e12), "warning", "20 TFLOP/s in bfloat16, 10% of its peak"),
        (replace(CHIPS, kind="TPU v99"), "warning", "configs/chips.yaml does not know this chip"),
        (replace(CHIPS, error="JAX finds 1 x cpu"), "fault", "with TPU 4: JAX finds 1 x cpu"),
    ],
)
def test_chips_are_judged_by_what_a_process_found(devices: Devices, grade: str, said: str) -> None:
    (finding,) = judge_devices([devices], None)
    assert finding.grade == grade
    assert said in finding.text


def test_speed_stands_beside_what_plan_reckons() -> None:
    fast = replace(CHIPS, images_per_second=200.0)
    _, finding = judge_devices([fast], "paligemma-3b-224")
    assert "answers 200 images/s" in finding.text
    assert float(finding.text.rpartition(" ")[2]) == pytest.approx(280, rel=0.5)


def test_a_cluster_without_a_bucket_or_accelerators_is_told_so(
    cluster: str, tmp_path: Path
) -> None:
    bucket, chips = examine("gs://no-such-bucket/runs", None)
    assert bucket.grade == "fault"
    assert "gs://no-such-bucket/runs cannot be written and read: " in bucket.text
    assert chips == Finding("warning", chips.text)
    assert chips.text.startswith("no node has the resource TPU or GPU")
    here, _ = examine(str(tmp_path), None)
    assert here.grade == "ok"
    assert not [*tmp_path.iterdir()]
