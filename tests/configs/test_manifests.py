"""Manifests for KubeRay: valid by its schema, with as many hosts as a slice has."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.chips import catalogue
from paliflow.configs.cluster import ClusterSpec
from paliflow.configs.manifests import as_yaml, pod_monitor, ray_cluster, ray_job, service_account

SCHEMAS = Path(__file__).parent.parent / "data" / "kuberay"
RUN = {"input": "gs://a/in", "output": "gs://a/out", "run_id": "r", "prompts": ["answer en $HOME?"]}


def validator(kind: str) -> Any:
    schema = json.loads((SCHEMAS / f"{kind.lower()}s.v1.schema.json").read_text())
    return Draft202012Validator(schema)


def spec(**fields: Any) -> ClusterSpec:
    return ClusterSpec.parse({"image": "registry/paliflow:1", **fields})


def workers(manifest: dict[str, Any]) -> dict[str, Any]:
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    (group,) = cluster["workerGroupSpecs"]
    found: dict[str, Any] = group
    return found


def asked(group: dict[str, Any]) -> dict[str, str]:
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    found: dict[str, str] = container["resources"]["limits"]
    return found


def test_manifests_of_every_topology_pass_the_schema_and_have_all_hosts_of_a_slice() -> None:
    cluster_schema, job_schema = validator("RayCluster"), validator("RayJob")
    run = AnnotateSpec.parse(RUN)
    for tpu in catalogue().tpus:
        for topology in tpu.topologies:
            hosts = spec(accelerator_type=tpu.name, topology=topology, slices=3, spot=True)
            cluster = ray_cluster("c", hosts, "2.60.0")
            job = ray_job("j", hosts, "2.60.0", "annotate", run)
            cluster_schema.validate(cluster)
            job_schema.validate(job)
            for group in map(workers, (cluster, job)):
                chips = int(asked(group)["google.com/tpu"])
                # What KubeRay's TPU webhook asks, or it refuses the pods.
                assert group["numOfHosts"] * chips == prod(map(int, topology.split("x")))
                assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 3
                selector = group["template"]["spec"]["nodeSelector"]
                assert selector["cloud.google.com/gke-tpu-topology"] == topology
                assert selector["cloud.google.com/gke-tpu-accelerator"] == tpu.gke
                assert selector["cloud.google.com/gke-spot"] == "true"


def test_gpu_hosts_ask_for_their_gpus() -> None:
    manifest = ray_cluster("c", spec(gpu="nvidia-l4", gpus_per_host=2, slices=4), "2.60.0")
    validator("RayCluster").validate(manifest)
    group = workers(manifest)
    assert asked(group) == {"nvidia.com/gpu": "2"}
    assert (group["replicas"], group["numOfHosts"]) == (4, 1)
    selector = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert group["template"]["spec"]["nodeSelector"] == selector


def test_job_carries_its_spec_and_ends_with_its_cluster() -> None:
    manifest = ray_job(
        "week-31",
        spec(accelerator_type="v6e", topology="4x4", queue="tpu", namespace="vision"),
        "2.60.0",
        "annotate",
        run := AnnotateSpec.parse(RUN),
    )
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "tpu"}
    assert manifest["metadata"]["namespace"] == "vision"
    job = manifest["spec"]
    assert job["jobId"] == "week-31"
    assert job["shutdownAfterJobFinishes"]
    variables = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    assert "$" not in variables["PALIFLOW_SPEC"]  # Ray would replace $HOME
    assert AnnotateSpec.parse(variables["PALIFLOW_SPEC"]) == run


def test_yaml_is_what_was_given_with_comments() -> None:
    hosts = spec(
        accelerator_type="v5e",
        topology="4x4",
        service_account="vision",
        host_cpu="100",
        host_memory="180Gi",
        spot=True,
    )
    google = "vision@shop.iam.gserviceaccount.com"
    objects = [
        service_account(hosts, google),
        pod_monitor("c", hosts),
        ray_cluster("c", hosts, "2.60.0"),
    ]
    text = as_yaml(objects)
    assert list(yaml.safe_load_all(text)) == objects
    assert (
        "\n    # Of one slice: its chips over those of a host. The webhook refuses others.\n"
        in text
    )
    for pod in (objects[2]["spec"]["headGroupSpec"], workers(objects[2])):
        assert pod["template"]["spec"]["serviceAccountName"] == "vision"
    assert asked(workers(objects[2])) == {
        "google.com/tpu": "4",
        "cpu": "100",
        "memory": "180Gi",
    }


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "give accelerator_type and topology for TPUs, e.g. v5e and 2x4, or gpu"),
        ({"accelerator_type": "v5e", "topology": "2x4", "gpu": "nvidia-l4"}, "give accelerator_ty"),
        ({"accelerator_type": "v5e"}, "topology is missing"),
        ({"gpu": "nvidia-l4", "namespace": "A b"}, "Kubernetes takes lower-case"),
        ({"gpu": "nvidia-l4", "host_memory": "many"}, "Kubernetes takes a number and a unit"),
        ({"gpu": "nvidia-l4", "slices": 0}, "slices=0"),
    ],
)
def test_clusters_that_cannot_be_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(**fields)
    assert complaint in str(caught.value)


def test_names_that_kuberay_has_no_room_for_are_refused() -> None:
    hosts = spec(gpu="nvidia-l4")
    ray_cluster("c" * 53, hosts, "2.60.0")
    with pytest.raises(SpecError, match="KubeRay leaves 53 characters"):
        ray_cluster("c" * 54, hosts, "2.60.0")
    with pytest.raises(SpecError, match="KubeRay leaves 47 characters"):
        ray_job("j" * 48, hosts, "2.60.0", "annotate", AnnotateSpec.parse(RUN))
