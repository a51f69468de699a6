"""A Kubernetes API that knows KubeRay's objects alone, with KubeRay behind it and Ray's heads.

It takes what passes KubeRay's schema and the rules of its TPU webhook. An object goes a step
further each time that it is looked at; when a RayJob runs, its entrypoint runs as a process of this
machine. It can lose answers, refuse, and forget objects.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from paliflow.tests.servers import running

TOKEN, RAY_TOKEN = "kubernetes-token", "ray-token"
STEPS = ("", "Initializing", "Running")
_SCHEMAS = Path(__file__).parent.parent / "data" / "kuberay"


class FakeKubernetes:
    """Its objects, what was asked of it, and what it is to do wrong."""

    def __init__(self, command: list[str] | None) -> None:
        """`command` runs in place of the entrypoint; the entrypoint itself if it is None."""
        self.command = command
        self.rayjobs: dict[str, dict[str, Any]] = {}
        self.rayclusters: dict[str, dict[str, Any]] = {}
        self.hosts_come = True
        self.made: list[tuple[str, str]] = []
        """Kinds and names of all objects that there ever were."""
        self.hold = threading.Event()
        """While it is not set, nobody hears that what the methods `held` asked for is done."""
        self.hold.set()
        self.held = {"POST"}
        self.delay_s = 0.0
        """Before each answer."""
        self.chosen: list[str] = []
        """Of RayJobs on clusters that were there, the cluster."""
        self.asked: Counter[str] = Counter()
        """How often each method was asked for of objects."""
        self.faults: deque[tuple[str, int]] = deque()
        """For the next requests of a method: a status to answer with, or 0 to answer nothing after
        it was done."""
        self.final: dict[str, Any] = {}
        """Of the status at its end, instead of what the process says."""
        self.pods: list[dict[str, Any]] | None = []
        """Of every cluster; None if nobody may see them."""
        self.late: list[dict[str, Any]] | None = None
        """Manifests whose creation is on its way until `arrive`; None where there is no delay."""
        self.silent = 0
        """How often a head does not answer for a job that has ended."""
        self.lingering = False
        """Whether objects that are deleted are seen for a while yet."""
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._steps: Counter[str] = Counter()
        self.lock = threading.Lock()

    def create(self, manifest: dict[str, Any]) -> tuple[int, Any]:
        """As KubeRay's operator, its schema and its webhook take it."""
        kind, spec = manifest["kind"], manifest["spec"]
        errors = [error.message for error in validator(f"{kind.lower()}s").iter_errors(manifest)]
        if kind == "RayJob":
            if bool(chosen := spec.get("clusterSelector")) == bool("rayClusterSpec" in spec):
                errors.append("one of clusterSelector and rayClusterSpec is needed")
            if chosen and spec.get("shutdownAfterJobFinishes"):
                errors.append("a cluster that was selected is not shut down")
            spec = spec.get("rayClusterSpec", {})
        for group in spec.get("workerGroupSpecs", ()) if not errors else ():
            pod = group["template"]["spec"]
            chips = int(pod["containers"][0]["resources"]["limits"]["google.com/tpu"])
            topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
            if group["numOfHosts"] * chips != prod(map(int, topology.split("x"))):
                errors.append("numOfHosts is not that of the topology")
        name = manifest["metadata"]["name"]
        if errors:
            return 422, {"message": "; ".join(errors)}
        objects = self.rayjobs if kind == "RayJob" else self.rayclusters
        if name in objects:
            return 409, {"message": "AlreadyExists"}
        if self.late is not None:
            self.late.append(manifest)
            return 504, {"message": "Timeout"}
        self.made.append((kind, name))
        self.chosen += manifest["spec"].get("clusterSelector", {}).values()
        objects[name] = manifest | {"status": {}}
        return 201, manifest

    def arrive(self) -> None:
        """Makes what was on its way."""
        with self.lock:
            arrived, self.late = self.late or [], None
            for manifest in arrived:
                self.create(manifest)

    def look_at_cluster(self, name: str) -> tuple[int, Any]:
        """A RayCluster, whose hosts are there at the third look."""
        if name not in self.rayclusters:
            return 404, {"message": "NotFound"}
        self._steps[name] += 1
        ready = self.hosts_come and self._steps[name] > 2
        self.rayclusters[name]["status"] = {
            "desiredWorkerReplicas": 4,
            "readyWorkerReplicas": 4 if ready else 1,
            "conditions": [
                {
                    "type": "RayClusterProvisioned",
                    "status": str(ready),
                    "reason": "AllPodRunningAndReadyFirstTime" if ready else "PodsProvisioning",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        }
        return 200, self.rayclusters[name]

    def look(self, name: str) -> tuple[int, Any]:
        """A RayJob, which has gone on since the last look."""
        if name not in self.rayjobs:
            return 404, {"message": "NotFound"}
        rayjob = self.rayjobs[name]
        self._steps[name] += 1
        status: dict[str, Any] = rayjob["status"]
        chosen = rayjob["spec"].get("clusterSelector", {}).get("ray.io/cluster")
        if name in self.processes and chosen and chosen not in self.rayclusters:
            return 200, rayjob  # KubeRay looks for the cluster first, and goes no further
        ready = self.hosts_come and (chosen is None or chosen in self.rayclusters)
        step = min(self._steps[name], len(STEPS) if ready else 2) - 1
        if STEPS[step] == "Initializing":
            status["rayClusterName"] = chosen or f"{name}-abcde"
            status["rayClusterStatus"] = {"desiredWorkerReplicas": 4, "readyWorkerReplicas": 1}
        if status.get("jobDeploymentStatus") not in ("Complete", "Failed", "ValidationFailed"):
            status["jobDeploymentStatus"] = STEPS[step]
        if STEPS[step] == "Running":
            process = self._process(name, rayjob)
            status |= {"rayClusterName": chosen or f"{name}-abcde", "jobStatus": "RUNNING"}
            if process.poll() is not None:
                went = "SUCCEEDED" if process.returncode == 0 else "FAILED"
                ended = "Complete" if process.returncode == 0 else "Failed"
                status |= {"jobDeploymentStatus": ended, "jobStatus": went}
        elif self.final.get("jobDeploymentStatus") == "ValidationFailed":
            status |= self.final
        if status["jobDeploymentStatus"] in ("Complete", "Failed"):
            status |= self.final
        return 200, rayjob

    def delete(self, name: str) -> tuple[int, Any]:
        """Its cluster and its job end with it."""
        if name not in self.rayjobs:
            return 404, {"message": "NotFound"}
        if self.lingering:
            self.rayjobs[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            del self.rayjobs[name]
        if process := self.processes.get(name):
            process.kill()
        return 200, {}

    def ray(self, path: str) -> tuple[int, Any]:
        """What the head of a job's cluster answers."""
        _, _, name, *logs = path.strip("/").split("/")
        if name not in self.rayjobs or name not in self.processes:
            return 404, {"message": "no such job"}
        process = self.processes[name]
        if self.silent and process.poll() is not None:
            self.silent -= 1
            return 502, {"message": "Bad Gateway"}
        if logs:
            return 200, {"logs": self._output(name).read_text()}
        return 200, {"driver_exit_code": process.poll(), "status": "RUNNING", "message": ""}

    def _process(self, name: str, rayjob: dict[str, Any]) -> subprocess.Popen[str]:
        if name not in self.processes:
            spec = rayjob["spec"]
            variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
            command = self.command or [sys.executable, *spec["entrypoint"].split()[1:]]
            with self._output(name).open("w") as output:
                self.processes[name] = subprocess.Popen(
                    command, env=os.environ | variables, stdout=output, stderr=output, text=True
                )
        return self.processes[name]

    def _output(self, name: str) -> Path:
        return Path(os.environ["AIRFLOW_HOME"], f"{name}.log")


@cache
def validator(plural: str = "rayjobs") -> Any:
    """Of KubeRay's objects, unknown fields refused."""
    return Draft202012Validator(json.loads((_SCHEMAS / f"{plural}.v1.schema.json").read_text()))


@contextmanager
def kubernetes(command: list[str] | None = None) -> Iterator[FakeKubernetes]:
    """Serves one, which the connection `kubernetes_default` leads to."""
    fake = FakeKubernetes(command)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            path = urlsplit(self.path).path
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            with fake.lock:
                status, answer = self._status(path, body)
                fault = None
                if fake.faults and fake.faults[0][0] == self.command and "/ray.io/" in path:
                    fault = fake.faults.popleft()[1]
            if self.command in fake.held:
                fake.hold.wait()
            time.sleep(fake.delay_s)
            if fault == 0:
                self.connection.close()
                return
            content = json.dumps(answer).encode()
            self.send_response(fault or status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _status(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return 401, {"message": "Unauthorized"}
            if "/services/" in path:
                if self.headers["X-Ray-Authorization"] != f"Bearer {RAY_TOKEN}":
                    return 403, {"message": "wrong token"}
                return fake.ray(path.partition("/proxy/")[2])
            if "/secrets/" in path:
                token = base64.b64encode(RAY_TOKEN.encode()).decode()
                return 200, {"data": {"auth_token": token}}
            if path.endswith("/pods"):
                if fake.pods is None:
                    return 403, {"message": "pods is forbidden"}
                assert "labelSelector=ray.io%2Fcluster%3D" in self.path
                return 200, {"items": fake.pods}
            _, found, rest = path.partition("/apis/ray.io/v1/namespaces/vision/")
            assert found, path
            plural, _, name = rest.partition("/")
            fake.asked[self.command] += 1
            refused = fake.faults and fake.faults[0] == (self.command, 403)
            if refused:
                return 403, {"message": "Forbidden"}
            if self.command == "POST":
                assert "fieldValidation=Strict" in self.path
                return fake.create(body)
            if plural == "rayjobs":
                return fake.look(name) if self.command == "GET" else fake.delete(name)
            if self.command == "GET":
                return fake.look_at_cluster(name)
            gone = fake.rayclusters.pop(name, None) is None
            return (404, {"message": "NotFound"}) if gone else (200, {})

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with running(server) as port:
        connection = {
            "conn_type": "kubernetes",
            "host": f"http://127.0.0.1:{port}",
            "password": TOKEN,
        }
        before = os.environ.get("AIRFLOW_CONN_KUBERNETES_DEFAULT")
        os.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = json.dumps(connection)
        try:
            yield fake
        finally:
            os.environ.pop("AIRFLOW_CONN_KUBERNETES_DEFAULT")
            if before:
                os.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = before
            for name in [*fake.rayjobs]:
                fake.delete(name)
