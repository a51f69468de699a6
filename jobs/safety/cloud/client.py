"""Requests to a service: paced, repeated where that may help, credentials never logged."""

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from paliflow.configs.base import SpecError, brief
from paliflow.jobs.safety.cloud.pace import SharedPace

TIMEOUT_S = 10.0
TRIES = 5
"""Of a request that fails in a way that may pass; quotas do not count."""
FIRST_WAIT_S = 1.0
"""Before the second try, twice as long before each further one, with jitter."""
QUOTA_PATIENCE_S = 300.0
"""That a request waits, in all, where the service says that the quota is used up."""
_LONGEST_WAIT_S = 60.0
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
Headers = Callable[[], Mapping[str, str]]


class _WithoutKeys(logging.Filter):
    """Removes keys from the URLs that httpx logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _KEY.sub(r"\1***", record.getMessage()), ()
        return True


_KEY = re.compile(r"([?&]key=)[^&\s\"]+")
logging.getLogger("httpx").addFilter(_WithoutKeys())


class UnscoredError(Exception):
    """A request that has no answer, and why: what it asked about has no score."""


class RejectedError(Exception):
    """A request that the service calls wrong (400)."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message") or "no reason given"))
        self.details = [each for each in error.get("details") or () if isinstance(each, dict)]


class Client:
    """A service at an endpoint; any thread may use it."""

    def __init__(
        self,
        service: str,
        endpoint: str,
        per_minute: int,
        headers: Headers = dict,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            service: its filter's name.
            endpoint: without a path.
            per_minute: requests.
            headers: makes those that each request has.
            parameters: of the URL.
        """
        self._service, self._headers = service, headers
        self._pace = SharedPace(service, per_minute)
        self._http = httpx.Client(
            base_url=endpoint, params=dict(parameters or {}), timeout=TIMEOUT_S
        )
        self._impatient_until = 0.0  # nobody waits for a quota that others have waited for
        self._secrets = tuple((parameters or {}).values())

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request; returns the answer, a JSON object.

        Raises:
            UnscoredError: there is no answer, after all tries.
            RejectedError: the service calls the request wrong.
            SpecError: it refuses whoever asks, or is not there any more.
        """
        tries, why = 0, ""
        limited_since: float | None = None
        while tries < TRIES:
            if tries:
                time.sleep(_wait(tries))
            time.sleep(self._pace.reserve())
            tries += 1
            try:
                answer = self._http.post(path, json=body, headers=dict(self._headers()))
            except httpx.TimeoutException:
                why = f"no answer within {TIMEOUT_S:g} s"
                continue
            except httpx.HTTPError as error:
                why = f"no connection ({type(error).__name__})"
                continue
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                tries, now = tries - 1, time.monotonic()
                limited_since = now if limited_since is None else limited_since
                waited = now - limited_since
                wait = _retry_after(answer, waited)
                if waited + wait > QUOTA_PATIENCE_S or now < self._impatient_until:
                    self._impatient_until = now + _LONGEST_WAIT_S
                    raise UnscoredError("the quota is used up")
                self._pace.pause(wait)
                continue
            if answer.is_server_error or answer.status_code == httpx.codes.REQUEST_TIMEOUT:
                why = f"the service answers {answer.status_code}"
                continue
            found = _parsed(answer)
            if answer.is_success and found is not None:
                return found
            if answer.is_success:
                why = "an answer that is no JSON object"
                continue
            told = (found or {}).get("error")
            told = told if isinstance(told, dict) else {}
            if answer.status_code == httpx.codes.BAD_REQUEST:
                raise RejectedError(told)
            raise SpecError(self._refusal(answer.status_code, told))
        raise UnscoredError(why)

    def refused(self, error: RejectedError) -> SpecError:
        """What a request that no text is to blame for stops the run with."""
        return SpecError(self._refusal(400, {"message": str(error)}))

    def _refusal(self, status: int, error: Mapping[str, Any]) -> str:
        said = str(error.get("message") or error.get("status") or "no reason given")
        for secret in self._secrets:
            said = said.replace(secret, "***")
        host = self._http.base_url.host
        return f"filters: {self._service}: {host} answers {status}: {brief(said)}"


def google_client(service: str, endpoint: str, per_minute: int) -> Client:
    """The client of a Google API, by Application Default Credentials.

    Raises:
        SpecError: there are none here.
    """
    return Client(service, endpoint, per_minute, _google_headers(service))


def _google_headers(service: str) -> Headers:
    """Makes the headers of Application Default Credentials, whose token is renewed in time.

    Raises:
        SpecError: there are none here.
    """
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
    from google.auth.transport import requests

    transport: Any = requests  # untyped, as is what it makes
    try:
        credentials: Any = google.auth.default([_SCOPE])[0]
    except DefaultCredentialsError:
        raise SpecError(
            f"filters: {service}: no Google credentials here; give actors a service account, or "
            "GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
    lock = threading.Lock()

    def headers() -> Mapping[str, str]:
        made: dict[str, str] = {}
        with lock:
            try:
                credentials.before_request(transport.Request(), "POST", "", made)
            except TransportError as error:
                raise httpx.ConnectError(type(error).__name__) from None
            except GoogleAuthError as error:
                raise SpecError(f"filters: {service}: {type(error).__name__}") from None
        return made

    return headers


def _wait(tries: int) -> float:
    wait: float = FIRST_WAIT_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
    return min(_LONGEST_WAIT_S, wait)


def _retry_after(answer: httpx.Response, waited: float) -> float:
    """As the service says, or as long again as was waited already."""
    said = answer.headers.get("Retry-After", "")
    if said.isdecimal():
        return float(said)
    return min(_LONGEST_WAIT_S, max(FIRST_WAIT_S, waited) * random.uniform(0.5, 1.5))


def _parsed(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
