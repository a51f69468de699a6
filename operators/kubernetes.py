"""`KubernetesHook`: a client of Kubernetes' REST API for KubeRay's objects."""

import asyncio
import base64
import os
import ssl
import time
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import httpx
from airflow.sdk import BaseHook, Connection
from asgiref.sync import sync_to_async

from paliflow.operators.hook import (
    STARTING_S,
    TIMEOUT_S,
    RayJobError,
    RayJobHook,
    require_secrecy,
)

_MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token and the authorities of its service account."""
_GKE_API = "https://container.googleapis.com/v1"
_CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
_API = "apis/ray.io/v1/namespaces"
OUTAGE_S = 1800.0
"""How long an object may be out of sight before the task that waits for it fails."""
Kind = Literal["RayJob", "RayCluster"]
_HINTS = {
    401: "the token is not accepted: it may have expired",
    403: "the account needs the rights of docs/clusters/ephemeral.md in this namespace",
    404: "is KubeRay installed? Its API ray.io/v1 has to be there",
    422: "the object is not what KubeRay's schema wants: its version may be older",
}


class KubernetesError(RayJobError):
    """Kubernetes could not be reached or refused; the message says where and what to check."""


class Outage:
    """Counts how long Kubernetes has not answered, or has refused: some minutes are usual, as where
    the control plane of a zonal GKE cluster is upgraded, and no reason to give a job up."""

    def __init__(self, log: Any) -> None:
        self._log, self._since = log, 0.0

    def over(self) -> None:
        """It has answered."""
        self._since = 0.0

    def given_up(self, error: RayJobError) -> bool:
        """Whether that is `OUTAGE_S` by now; logs the error if not."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= OUTAGE_S:
            return True
        self._log.warning(
            "Kubernetes could not be asked, for %d s by now. What runs there goes on, and is given "
            "up after %d s: %s",
            *(now - self._since, OUTAGE_S, error),
        )
        return False


class KubernetesHook(BaseHook):
    """KubeRay's objects of a namespace, inside `async with KubernetesHook(...) as kubernetes:`.

    The connection, of type `kubernetes`, is one of:

    - `in_cluster` true in extra: the service account of the pod that this runs in;
    - `gke_cluster` in extra, `projects/P/locations/L/clusters/C`: a GKE cluster, by the Application
      Default Credentials of this machine; it takes the package google-auth;
    - host (the API server's URL), password (a token), and `ca` in extra, its authorities' path.

    Every method raises `KubernetesError`.
    """

    conn_name_attr = "kubernetes_conn_id"
    default_conn_name = "kubernetes_default"
    conn_type = "kubernetes"
    hook_name = "Kubernetes"

    def __init__(self, kubernetes_conn_id: str, namespace: str) -> None:
        super().__init__()
        self.kubernetes_conn_id = kubernetes_conn_id
        self.namespace = namespace

    async def __aenter__(self) -> Self:
        connection = await self.aget_connection(self.kubernetes_conn_id)
        try:
            url, token, verify = await sync_to_async(_access)(connection)
            require_secrecy(httpx.URL(url), allow_insecure=False)
        except (OSError, ValueError, ImportError) as error:
            raise KubernetesError(f"connection {self.kubernetes_conn_id!r}: {error}") from None
        self._url, self._verify = httpx.URL(url), verify
        self._headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.AsyncClient(
            base_url=self._url, headers=self._headers, verify=verify, timeout=TIMEOUT_S
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def create(self, manifest: dict[str, Any]) -> None:
        """Makes an object; does nothing if there is one of its kind and name."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        try:
            params = {"fieldValidation": "Strict"}
            await self._send("POST", self._path(kind), params=params, json=manifest)
        except KubernetesError as error:
            if error.http_status != 409:
                raise
            self.log.info("%s %s is there already", kind, name)

    async def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """An object; None if there is none."""
        try:
            found = (await self._send("GET", self._path(kind, name))).json()
        except KubernetesError as error:
            if error.http_status == 404:
                return None
            raise
        assert isinstance(found, dict)
        return found

    async def delete(self, kind: Kind, name: str, *, awaited: bool = False) -> None:
        """Deletes an object, and what belongs to it; does nothing if there is none.

        Args:
            kind: of it.
            name: of it.
            awaited: whether its creation may be on its way: while there is none, Kubernetes is
                asked again for `STARTING_S` seconds.
        """
        until = time.monotonic() + (STARTING_S if awaited else 0.0)
        while not await self._deleted(kind, name) and time.monotonic() < until:
            await asyncio.sleep(0.5)

    async def _deleted(self, kind: Kind, name: str) -> bool:
        try:
            params = {"propagationPolicy": "Background"}
            await self._send("DELETE", self._path(kind, name), params=params)
        except KubernetesError as error:
            if error.http_status != 404:
                raise
            return False
        return True

    async def pods(self, cluster: str) -> list[dict[str, Any]]:
        """The pods of a RayCluster."""
        path = f"api/v1/namespaces/{self.namespace}/pods"
        params = {"labelSelector": f"ray.io/cluster={cluster}"}
        return list((await self._send("GET", path, params=params)).json().get("items") or ())

    async def ray_of(self, cluster: str) -> RayJobHook:
        """A client of the Jobs API of a RayCluster's head, through Kubernetes' API server.

        Ray's token is in the Secret that KubeRay has made. Whoever asks closes it.
        """
        secret = (
            await self._send("GET", f"api/v1/namespaces/{self.namespace}/secrets/{cluster}")
        ).json()
        return _ProxiedRay(self, cluster, secret.get("data", {}).get("auth_token", ""))

    def _path(self, kind: Kind, name: str | None = None) -> str:
        return f"{_API}/{self.namespace}/{kind.lower()}s" + (f"/{name}" if name else "")

    async def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        where = f"{method} {self._url.join(path)} (connection {self.kubernetes_conn_id!r})"
        try:
            response = await self._client.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise KubernetesError(f"{where}: {type(error).__name__}: {error}") from error
        if response.is_success:
            return response
        hint = _HINTS.get(response.status_code, "")
        raise KubernetesError(
            f"{where}: HTTP {response.status_code}; {hint} {response.text[-1000:]}".rstrip("; "),
            response.status_code,
        )


class _ProxiedRay(RayJobHook):
    """The head of a RayCluster behind Kubernetes' API server."""

    def __init__(self, kubernetes: KubernetesHook, cluster: str, encoded_token: str) -> None:
        super().__init__(kubernetes.kubernetes_conn_id)
        token = base64.b64decode(encoded_token).decode()
        service = f"services/{cluster}-head-svc:dashboard/proxy/"
        path = f"api/v1/namespaces/{kubernetes.namespace}/{service}"
        headers = {**kubernetes._headers, "X-Ray-Authorization": f"Bearer {token}"}
        self._client = httpx.AsyncClient(
            base_url=kubernetes._url.join(path),
            headers=headers,
            verify=kubernetes._verify,
            timeout=TIMEOUT_S,
        )

    async def __aenter__(self) -> Self:
        return self


def _access(connection: Connection) -> tuple[str, str, ssl.SSLContext]:
    """The API server's URL, a token, and whom to trust.

    Raises:
        OSError: a file is not there.
        ValueError: the connection names no cluster.
        ImportError: google-auth is not installed.
    """
    extra = connection.extra_dejson
    if str(extra.get("in_cluster", "")).lower() == "true":
        host = os.environ.get("KUBERNETES_SERVICE_HOST")
        if not host:
            raise ValueError("in_cluster: this process is in no pod of Kubernetes")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        trusted = ssl.create_default_context(cafile=str(_MOUNTED / "ca.crt"))
        return f"https://{host}:{port}/", (_MOUNTED / "token").read_text().strip(), trusted
    if cluster := extra.get("gke_cluster"):
        return _gke_access(str(cluster))
    if not connection.host or not connection.password:
        raise ValueError(
            "give host and password (a token), or in_cluster or gke_cluster in its extra"
        )
    host = connection.host if "://" in connection.host else f"https://{connection.host}"
    port = f":{connection.port}" if connection.port else ""
    ca = extra.get("ca")
    verify = ssl.create_default_context(cafile=str(ca)) if ca else _public_authorities()
    return f"{host.rstrip('/')}{port}/", connection.password, verify


@cache
def _public_authorities() -> ssl.SSLContext:
    """What httpx would make for each client anew: a fifth of a second, in which a triggerer's other
    triggers wait."""
    return httpx.create_ssl_context()


def _gke_access(cluster: str) -> tuple[str, str, ssl.SSLContext]:
    """
    Raises:
        OSError: Google does not say where the cluster is.
        ImportError: google-auth is not installed.
    """
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport import requests

    transport: Any = requests  # untyped, as is what it makes
    try:
        credentials: Any = google.auth.default([_CLOUD_PLATFORM])[0]
        credentials.refresh(transport.Request())
        response = httpx.get(
            f"{_GKE_API}/{cluster}",
            headers={"Authorization": f"Bearer {credentials.token}"},
            timeout=TIMEOUT_S,
        )
        response.raise_for_status()
    except (GoogleAuthError, httpx.HTTPError) as error:
        raise OSError(f"gke_cluster={cluster!r}: {error}") from error
    found = response.json()
    authorities = base64.b64decode(found["masterAuth"]["clusterCaCertificate"]).decode()
    trusted = ssl.create_default_context(cadata=authorities)
    return f"https://{found['endpoint']}/", str(credentials.token), trusted
