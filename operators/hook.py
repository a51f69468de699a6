"""`RayJobHook`: a client of Ray's Jobs REST API."""

import asyncio
import contextlib
import ipaddress
import json
import ssl
import time
from typing import Any, Self

import httpx
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowException
from asgiref.sync import sync_to_async

from paliflow.configs.base import printable

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
TIMEOUT_S = 30.0
SUBMIT_ATTEMPTS = 3
STARTING_S = 10.0
PACKAGE_BYTES = 100 * 2**20
"""Ray answers 413 to a larger request."""
_TOKEN_HINT = "the connection's password has to be the cluster's token"
_HINTS = {
    401: _TOKEN_HINT,
    403: _TOKEN_HINT,
    404: "the cluster does not know it: a head that restarted forgets its jobs, and a wrong host,"
    " port or path prefix has no Jobs API",
}


class RayJobError(AirflowException):
    """Ray could not be reached or refused; the message says where, what and what to check."""

    def __init__(self, message: str, http_status: int | None = None) -> None:
        super().__init__(printable(message))
        self.http_status = http_status


class RayJobHook(BaseHook):
    """Jobs of one Ray cluster, inside `async with RayJobHook("ray_default") as ray:`.

    The connection, of type `ray`: host (a name, or a URL that may have a path), port (8265),
    schema (`http` or `https`), password (the cluster's token, sent as a Bearer token in
    X-Ray-Authorization, and in Authorization unless `headers` has one for a proxy) and in
    extra `headers` (a mapping, or one as JSON) and `verify` (false accepts any certificate, a path
    names the bundle of authorities to trust) and `allow_insecure` (true lets a token or headers
    go to another host over plain http).

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
        url = base_url(connection)
        # The one name that all of Airflow's kinds of connections have; it may wait for the
        # supervisor, to which it tells what to mask, and so must not run in the event loop.
        extra = await sync_to_async(lambda: connection.extra_dejson)()
        try:
            headers = httpx.Headers(_mapping(extra.get("headers")))
            verify = _verification(extra.get("verify"))
            if connection.password:
                # Ray takes either; a proxy that wants an Authorization of its own leaves the other.
                headers["X-Ray-Authorization"] = f"Bearer {connection.password}"
                headers.setdefault("Authorization", headers["X-Ray-Authorization"])
            if headers or url.userinfo:
                require_secrecy(url, extra.get("allow_insecure"))
        except (ValueError, OSError) as error:
            raise RayJobError(f"connection {self.ray_conn_id!r}: {error}") from None
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, verify=verify, timeout=TIMEOUT_S
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def test_connection(self) -> tuple[bool, str]:
        """Asks for the cluster's version and its jobs; what Airflow's Test button calls."""

        async def ask() -> str:
            async with self as ray:
                await ray._send("GET", "api/jobs/")  # before 2.60 the version needed no token
                return await ray.version()

        try:
            return True, f"Ray {asyncio.run(ask())} answers"
        except RayJobError as error:
            return False, str(error)

    def page(self, submission_id: str) -> str:
        """The job's address on Ray's dashboard, without credentials."""
        url = base_url(self.get_connection(self.ray_conn_id)).copy_with(username="", password="")
        return f"{str(url).rstrip('/')}/#/jobs/{submission_id}"

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
        """Starts `entrypoint` as a job; does nothing if a job with this id exists.

        A request that broke off may have arrived, so it is sent again under the same id.
        """
        body = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "runtime_env": runtime_env,
            "metadata": metadata,
        }
        for attempt in range(1, SUBMIT_ATTEMPTS + 1):
            try:
                await self._send("POST", "api/jobs/", json=body)
            except RayJobError as error:
                if f"submission_id {submission_id} already exists" in str(error):
                    self.log.info("Ray job %s was already submitted", submission_id)
                    return
                broke_off = error.http_status is None and not isinstance(
                    error.__cause__, httpx.ConnectError
                )
                if not broke_off or attempt == SUBMIT_ATTEMPTS:
                    raise
                self.log.warning("Submitting again, in case it did not arrive: %s", error)
            else:
                return

    async def upload(self, name: str, content: bytes) -> str:
        """Stores a package on the cluster, unless it has one of this name; returns its URI."""
        if len(content) > PACKAGE_BYTES:
            raise RayJobError(
                f"the package {name} has {len(content) / 2**20:.0f} MiB, and Ray takes "
                f"{PACKAGE_BYTES >> 20} MiB; leave data out by `excludes` or a .rayignore, or put "
                "it in a bucket"
            )
        path = f"api/packages/gcs/{name}"
        try:
            await self._send("GET", path)
        except RayJobError as error:
            if error.http_status != 404:
                raise
            await self._send("PUT", path, content=content)
        return f"gcs://{name}"

    async def status(self, submission_id: str) -> str | None:
        """Ray's status of a job; None if the cluster does not know it."""
        try:
            return str((await self.job(submission_id))["status"])
        except RayJobError as error:
            if error.http_status == 404:
                return None
            raise

    async def job(self, submission_id: str) -> dict[str, Any]:
        """Ray's `JobDetails`: `status`, `message`, `driver_exit_code` and more."""
        details = (await self._send("GET", f"api/jobs/{submission_id}")).json()
        assert isinstance(details, dict)
        return details

    async def logs(self, submission_id: str) -> str:
        """All that the job has printed so far; empty before it starts."""
        return str((await self._send("GET", f"api/jobs/{submission_id}/logs")).json()["logs"])

    async def stop(self, submission_id: str) -> bool:
        """Asks a job to stop; false if it had ended already or the cluster does not know it.

        A job whose submission is on its way, or whose process Ray is about to start, cannot hear
        it: such a job is asked again for `STARTING_S` seconds.
        """
        patience = time.monotonic() + STARTING_S
        while not (heard := await self._ask_to_stop(submission_id)):
            starting = await self.status(submission_id) in (None, "PENDING")
            if not starting or time.monotonic() > patience:
                break
            await asyncio.sleep(0.5)
        return heard

    async def _ask_to_stop(self, submission_id: str) -> bool:
        try:
            answer = await self._send("POST", f"api/jobs/{submission_id}/stop")
        except RayJobError as error:
            if error.http_status == 404:
                return False
            raise
        return bool(answer.json()["stopped"])

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
            f"{where}: HTTP {response.status_code}; {hint} {response.text[-1000:]}".rstrip("; "),
            response.status_code,
        )


def base_url(connection: Connection) -> httpx.URL:
    """Where a connection's dashboard is; `http://localhost:8265` if it says nothing."""
    host = connection.host or "localhost"
    if "://" in host:
        url = httpx.URL(host)
        return url.copy_with(port=connection.port) if connection.port else url
    return httpx.URL(f"{connection.schema or 'http'}://{host}:{connection.port or 8265}")


def require_secrecy(url: httpx.URL, allow_insecure: object) -> None:
    """
    Raises:
        ValueError: anybody on the way could read what is sent there, and nobody has allowed it.
    """
    allowed = str(allow_insecure or False).lower()
    if allowed not in ("true", "false"):
        raise ValueError(f"allow_insecure={allow_insecure!r}: true or false")
    if url.scheme == "https" or _is_loopback(url.host) or allowed == "true":
        return
    raise ValueError(
        f"its token or headers would cross the network to {url.host!r} in the clear: use https, or "
        "set allow_insecure to true in the connection's extra if that network is trusted"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _mapping(headers: object) -> dict[str, str]:
    if isinstance(headers, str):
        with contextlib.suppress(json.JSONDecodeError):
            headers = json.loads(headers or "null")
    if not isinstance(headers, dict | None):
        raise ValueError(f"headers: a JSON object is needed, not a {type(headers).__name__}")
    return headers or {}


def _verification(verify: object) -> bool | ssl.SSLContext:
    if verify is None or str(verify).lower() in ("true", ""):
        return True
    if str(verify).lower() == "false":
        return False
    try:
        return ssl.create_default_context(cafile=str(verify))
    except OSError as error:
        raise OSError(
            f"verify={verify!r}: true, false or the path of a bundle of certificates: {error}"
        ) from None
