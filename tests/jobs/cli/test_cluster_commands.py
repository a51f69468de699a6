"""`paliflow cluster render`: what its options become, and what it refuses."""

from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from paliflow.configs.base import SpecError
from paliflow.jobs.cli.main import app


def render(options: str) -> str:
    result = CliRunner().invoke(app, ["cluster", "render", *options.split()])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_options_become_a_cluster_and_what_stands_beside_it() -> None:
    options = "--chip V6E --topology 4x4 --slices 2 --spot --name c --namespace vision --monitor"
    text = render(f"{options} --service-account v@shop.iam --kueue q --host-cpu 100 --image i:1")
    account, monitor, cluster = yaml.safe_load_all(text)
    assert account["metadata"]["name"] == "c"
    assert {each["metadata"]["namespace"] for each in (account, monitor, cluster)} == {"vision"}
    assert cluster["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "q"}
    assert cluster["spec"]["rayVersion"] == version("ray")
    (group,) = cluster["spec"]["workerGroupSpecs"]
    assert (group["numOfHosts"], group["replicas"]) == (4, 2)
    (container,) = group["template"]["spec"]["containers"]
    assert container["image"] == "i:1"
    assert container["resources"]["limits"] == {"google.com/tpu": "4", "cpu": "100"}


def test_a_spec_becomes_a_job_with_a_cluster_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("{input: in, output: gs://a/out, run_id: r, prompts: [ocr]}")
    (job,) = yaml.safe_load_all(render(f"--gpu nvidia-l4 --job annotate --spec {file}"))
    assert (job["kind"], job["metadata"]["name"]) == ("RayJob", "paliflow")
    assert job["spec"]["entrypoint"] == "python -m paliflow.jobs annotate"
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["image"].endswith(f"/paliflow:{version('paliflow')}")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--chip v5e --topology 3x3", "topology='3x3': v5e has slices of"),
        ("--chip v5e --topology 2x4 --job annotate", "--job and --spec go together"),
        ("--gpu nvidia-l4 --job promote --spec none.yaml", "--job 'promote': one of annotate"),
        ("--slices 2", "give accelerator_type and topology for TPUs"),
    ],
)
def test_what_cannot_be_rendered_is_refused(options: str, complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        render(options)
    assert complaint in str(caught.value)
