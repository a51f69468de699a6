"""What KubeRay is given: a RayCluster or a RayJob, and what stands beside it, as YAML to read."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from paliflow.configs.base import Spec, SpecError
from paliflow.configs.cluster import ClusterSpec
from paliflow.configs.summary import SPEC_VARIABLE

_CLUSTER_NAME, _JOB_NAME = 53, 47
"""Characters that KubeRay leaves for names, since it appends to them."""
DRAIN_S = 12
"""Seconds in which a node that is told to end drains: GKE gives Spot pods 15 in all."""
_METRICS_PORT = "metrics"
_TTL_S = 300
_DEADLINE_S = 86_400
_WAIT_S = 7200
_COMMENTS = {
    "kueue.x-k8s.io/queue-name": "Kueue starts it when there is quota for all of it.",
    "jobId": "Ray's submission id: a job that is submitted again under it stays one job.",
    "submissionMode": "The operator submits by HTTP; no pod is started for that.",
    "shutdownAfterJobFinishes": "The cluster ends with the job.",
    "ttlSecondsAfterFinished": "Time to read logs before that.",
    "activeDeadlineSeconds": "Ends a job that hangs, queueing left out.",
    "preRunningDeadlineSeconds": "Gives up where no hosts come.",
    "backoffLimit": "The scheduler that asks for it tries again: a run resumes.",
    "rayVersion": "The image's. Head and workers have to have the same Ray and Python.",
    "authOptions": "KubeRay makes the token: Secret <name>, key auth_token.",
    "headGroupSpec": "No actors run on the head, only the job's driver.",
    "serviceAccountName": "Whose Google identity reads and writes gs://.",
    "numOfHosts": "Of one slice: its chips over those of a host. The webhook refuses others.",
    "replicas": "Slices. RayClusters have no end of their own: delete what you do not use.",
    "cloud.google.com/gke-tpu-accelerator": "Which node pool: it has to be there.",
    "cloud.google.com/gke-accelerator": "Which node pool: it has to be there.",
    "cloud.google.com/gke-spot": "Cheaper, and taken away with 15 seconds' notice.",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "Ray's default of 30 s is longer than that notice.",
    "google.com/tpu": "All chips of a host, so that a pod has it for itself.",
    "iam.gke.io/gcp-service-account": "Workload Identity: who this account is to Google.",
    "podMetricsEndpoints": "Ray's and Paliflow's figures, of every node.",
}
"""What is said above the first field of that name, or above a variable of that name."""


def ray_cluster(name: str, spec: ClusterSpec, ray_version: str) -> dict[str, Any]:
    """A RayCluster, which is there until somebody deletes it.

    Args:
        name: of the object.
        spec: its hosts.
        ray_version: of the image.

    Raises:
        SpecError: the name is too long for KubeRay.
    """
    _require_short(name, _CLUSTER_NAME)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(name, spec),
        "spec": _cluster(spec, ray_version),
    }


def ray_job(
    name: str,
    spec: ClusterSpec,
    ray_version: str,
    job: str,
    run: Spec,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A RayJob: a cluster that is there for one job.

    Args:
        name: of the object, and the Ray job's submission id.
        spec: its hosts.
        ray_version: of the image.
        job: `python -m paliflow.jobs JOB` runs it.
        run: the job's spec.
        variables: of the job's environment, besides the spec's.

    Raises:
        SpecError: the name is too long for KubeRay.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(name, spec),
        "spec": {
            **_job(name, job, run, variables or {}),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": _TTL_S,
            "activeDeadlineSeconds": _DEADLINE_S,
            "preRunningDeadlineSeconds": _WAIT_S,
            "backoffLimit": 0,
            "rayClusterSpec": _cluster(spec, ray_version),
        },
    }


def ray_job_on(
    name: str,
    cluster: str,
    namespace: str,
    job: str,
    run: Spec,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A RayJob on a RayCluster that is there, and stays.

    Args:
        name: of the object, and the Ray job's submission id.
        cluster: the RayCluster's name.
        namespace: of both.
        job, run, variables: as of `ray_job`.

    Raises:
        SpecError: the name is too long for KubeRay.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            **_job(name, job, run, variables or {}),
            "activeDeadlineSeconds": _DEADLINE_S,
            "clusterSelector": {"ray.io/cluster": cluster},
        },
    }


def _job(name: str, job: str, run: Spec, variables: Mapping[str, str]) -> dict[str, Any]:
    _require_short(name, _JOB_NAME)
    # Ray replaces $NAME in environment variables; in JSON a dollar sign can hide from that.
    given = {SPEC_VARIABLE: run.given().replace("$", r"\u0024")}
    return {
        "jobId": name,
        "entrypoint": f"python -m paliflow.jobs {job}",
        "runtimeEnvYAML": json.dumps({"env_vars": {**variables, **given}}),
        "submissionMode": "HTTPMode",
    }


def service_account(spec: ClusterSpec, google: str) -> dict[str, Any]:
    """The service account of the cluster's pods.

    Args:
        spec: with a `service_account`.
        google: the Google service account that it is, e.g. `vision@shop.iam.gserviceaccount.com`.
    """
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": spec.service_account,
            "namespace": spec.namespace,
            "annotations": {"iam.gke.io/gcp-service-account": google},
        },
    }


def pod_monitor(name: str, spec: ClusterSpec) -> dict[str, Any]:
    """What has the Prometheus operator read the metrics of all pods of a cluster."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": name, "namespace": spec.namespace},
        "spec": {
            "selector": {"matchLabels": {"ray.io/is-ray-node": "yes"}},
            "podMetricsEndpoints": [{"port": _METRICS_PORT}],
        },
    }


def as_yaml(objects: Iterable[Mapping[str, Any]]) -> str:
    """Objects as YAML documents, with comments that say what fields are for."""
    text = yaml.safe_dump_all([*objects], sort_keys=False, width=2**16)
    lines, left = [], dict(_COMMENTS)
    for line in text.splitlines():
        found = re.match(r"(\s*)(?:- )?(?:name: )?([^\s:]+)", line)
        if found and (comment := left.pop(found[2], None)):
            lines.append(f"{found[1]}# {comment}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _require_short(name: str, limit: int) -> None:
    if len(name) > limit:
        raise SpecError(f"name={name!r}: KubeRay leaves {limit} characters for it")


def _metadata(name: str, spec: ClusterSpec) -> dict[str, Any]:
    queue = {"labels": {"kueue.x-k8s.io/queue-name": spec.queue}} if spec.queue else {}
    return {"name": name, "namespace": spec.namespace, **queue}


def _cluster(spec: ClusterSpec, ray_version: str) -> dict[str, Any]:
    head = {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"memory": "16Gi"}}
    return {
        "rayVersion": ray_version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": _template(spec, "ray-head", {"JAX_PLATFORMS": "cpu"}, head, {}),
        },
        "workerGroupSpecs": [_workers(spec)],
    }


def _workers(spec: ClusterSpec) -> dict[str, Any]:
    variables = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_S)}
    if slice_ := spec.slice:
        name, hosts, accelerators = "tpu", slice_.hosts, {"google.com/tpu": slice_.chips_per_host}
        variables["JAX_PLATFORMS"] = "tpu,cpu"
        selector = {
            "cloud.google.com/gke-tpu-accelerator": slice_.tpu.gke,
            "cloud.google.com/gke-tpu-topology": slice_.topology,
        }
    else:
        name, hosts, accelerators = "gpu", 1, {"nvidia.com/gpu": spec.gpus_per_host}
        selector = {"cloud.google.com/gke-accelerator": str(spec.gpu)}
    if spec.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    asked = {kind: str(amount) for kind, amount in accelerators.items()}
    if spec.host_cpu:
        asked["cpu"] = spec.host_cpu
    if spec.host_memory:
        asked["memory"] = spec.host_memory
    resources = {"requests": dict(asked), "limits": dict(asked)}
    return {
        "groupName": name,
        "replicas": spec.slices,
        "minReplicas": spec.slices,
        "maxReplicas": spec.slices,
        "numOfHosts": hosts,
        "rayStartParams": {},
        "template": _template(spec, "ray-worker", variables, resources, selector),
    }


def _template(
    spec: ClusterSpec,
    container: str,
    variables: Mapping[str, str],
    resources: Mapping[str, Any],
    selector: Mapping[str, str],
) -> dict[str, Any]:
    pod: dict[str, Any] = {}
    if spec.service_account:
        pod["serviceAccountName"] = spec.service_account
    if selector:
        pod["nodeSelector"] = dict(selector)
    return {
        "spec": {
            **pod,
            "containers": [
                {
                    "name": container,
                    "image": spec.image,
                    "env": [{"name": name, "value": value} for name, value in variables.items()],
                    "resources": dict(resources),
                }
            ],
        }
    }
