"""`RayJobHook`: a client of Ray's Jobs REST API."""

from typing import Any, Self

import httpx
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowException

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
TIMEOUT_S = 30.0
_TOKEN_HINT = "the connection's password has to be the cluster's token"
_HINTS = {
    401: _TOKEN_HINT,
    403: _TOKEN_HINT,
    404: "the cluster does not know it: a head that restarted forgets its jobs, and a wrong host,"
    " port or path prefix has no Jobs API",
}


class RayJobError(AirflowException):
    """Ray could not be reached or refused; the message says where, what and what to check."""


class RayJobHook(BaseHook):
    """Jobs of one Ray cluster, inside `async with RayJobHook("ray_default") as ray:`.

    The connection, of type `ray`: host (a name, or a URL that may have a path), port (8265),
    schema (`http` or `https`), password (the cluster's token, sent as a Bearer token) and in
    extra `headers` (a mapping) and `verify` (false accepts any certificate).

    Every method raises `RayJobError`. It is httpx and not Ray's own client because that one has
    no timeouts, blocks the event loop and would put Ray on every Airflow worker. Source: the
    routes of `ray/dashboard/modules/job/job_head.py`, Ray 2.60.
    """

    conn_name_attr = "ray_conn_id"
    default_conn_name = "ray_default"
    conn_type = "ray"
    hook_name = "Ray"

    def __init__(self, ray_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id

    async def __aenter__(self) -> Self:
        connection = await self.aget_connection(self.ray_conn_id)
        extra = await connection.aextra_dejson()
        headers = httpx.Headers(extra.get("headers"))
        if connection.password:
            headers["Authorization"] = f"Bearer {connection.password}"
        self._client = httpx.AsyncClient(
            base_url=base_url(connection),
            headers=headers,
            verify=str(extra.get("verify", True)).lower() != "false",
            timeout=TIMEOUT_S,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def version(self) -> str:
        """The cluster's Ray version."""
        return str((await self._send("GET", "api/version")).json()["ray_version"])

    async def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        runtime_env: dict[str, Any],
        metadata: dict[str, str],
    ) -> None:
        """Starts `entrypoint` as a job; does nothing if a job with this id exists."""
        body = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "runtime_env": runtime_env,
            "metadata": metadata,
        }
        try:
            await self._send("POST", "api/jobs/", json=body)
        except RayJobError as error:
            if f"submission_id {submission_id} already exists" not in str(error):
                raise
            self.log.info("Ray job %s was already submitted", submission_id)

    async def job(self, submission_id: str) -> dict[str, Any]:
        """Ray's `JobDetails`: `status`, `message`, `driver_exit_code` and more."""
        details = (await self._send("GET", f"api/jobs/{submission_id}")).json()
        assert isinstance(details, dict)
        return details

    async def logs(self, submission_id: str) -> str:
        """All that the job has printed so far; empty before it starts."""
        return str((await self._send("GET", f"api/jobs/{submission_id}/logs")).json()["logs"])

    async def stop(self, submission_id: str) -> bool:
        """Asks a job to stop; false if it had ended already."""
        return bool((await self._send("POST", f"api/jobs/{submission_id}/stop")).json()["stopped"])

    async def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        where = f"{method} {self._client.base_url.join(path)} (connection {self.ray_conn_id!r})"
        try:
            response = await self._client.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise RayJobError(
                f"{where}: {type(error).__name__}: {error}; check that the cluster is up and"
                " that host, port and schema are right"
            ) from error
        if response.is_success:
            return response
        if response.is_redirect:
            hint = f"it redirects to {response.headers['location']}; use the address behind it"
        else:
            hint = _HINTS.get(response.status_code, "")
        raise RayJobError(
            f"{where}: HTTP {response.status_code}; {hint} {response.text[-1000:]}".rstrip("; ")
        )


def base_url(connection: Connection) -> httpx.URL:
    """Where a connection's dashboard is; `http://localhost:8265` if it says nothing."""
    host = connection.host or "localhost"
    if "://" in host:
        url = httpx.URL(host)
        return url.copy_with(port=connection.port) if connection.port else url
    return httpx.URL(f"{connection.schema or 'http'}://{host}:{connection.port or 8265}")
