"""What a `google_cloud_platform` connection gives a job: environment variables for Google's ADC."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_NB, flock
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowFailException

from paliflow.configs.folders import private_folder

_OTHER_IDENTITIES = (
    "credential_config_file",
    "idp_issuer_url",
    "impersonation_chain",
    "is_anonymous",
    "key_secret_name",
)


@contextlib.contextmanager
def local_environment(conn_id: str | None) -> Iterator[dict[str, str]]:
    """For a process on this machine, as long as the context lasts.

    A key that the connection holds itself is meanwhile in a file that only this user can read;
    those of workers that were killed are removed as the next one starts.

    Raises:
        AirflowFailException: the connection names its credentials in a way that is not supported.
    """
    environment, key = _read(conn_id)
    with _key_file() as file:
        if key is None:
            yield environment
            return
        file.write(key)
        file.flush()
        yield {**environment, "GOOGLE_APPLICATION_CREDENTIALS": file.name}


@contextlib.contextmanager
def _key_file() -> Iterator[Any]:
    """A private file, removed in the end; those that killed workers have left are removed now.

    Its lock ends with the process that holds it, however that ends.
    """
    folder = private_folder()
    with contextlib.ExitStack() as stack:
        with (folder / "keys.lock").open("a") as one_at_a_time:
            flock(one_at_a_time, LOCK_EX)  # between a file's making and its lock nobody looks
            for left in folder.glob("gcp-*.json"):
                with contextlib.suppress(OSError), left.open() as unlocked:
                    flock(unlocked, LOCK_EX | LOCK_NB)
                    left.unlink()
            file = stack.enter_context(
                tempfile.NamedTemporaryFile("w", dir=folder, prefix="gcp-", suffix=".json")
            )
            flock(file, LOCK_EX)
        yield file


def cluster_environment(conn_id: str | None) -> dict[str, str]:
    """For a job on another machine: only what is no secret, because Ray's dashboard shows it.

    Raises:
        AirflowFailException: as `local_environment`, or the connection holds the key itself.
    """
    environment, key = _read(conn_id)
    if key is not None:
        raise AirflowFailException(
            f"gcp_conn_id={conn_id!r}: its keyfile_dict cannot go to a Ray cluster, whose dashboard"
            " shows every job's environment. Put the key on the cluster's machines and name it by"
            " key_path, or give them a service account of their own and leave gcp_conn_id out."
        )
    return environment


def _read(conn_id: str | None) -> tuple[dict[str, str], str | None]:
    if not conn_id:
        return {}, None
    connection = BaseHook.get_connection(conn_id)
    if connection.conn_type != "google_cloud_platform":
        raise AirflowFailException(
            f"gcp_conn_id={conn_id!r}: the connection is of type {connection.conn_type!r};"
            " it has to be a google_cloud_platform one"
        )
    prefix = "extra__google_cloud_platform__"  # of connections made before Airflow 2.6
    extra: dict[str, Any] = {
        name.removeprefix(prefix): value for name, value in connection.extra_dejson.items() if value
    }
    if refused := sorted(extra.keys() & set(_OTHER_IDENTITIES)):
        raise AirflowFailException(
            f"gcp_conn_id={conn_id!r}: {', '.join(refused)} cannot be passed on to a job, only"
            " key_path, keyfile_dict and project; for others, give the machine that runs the job"
            " Application Default Credentials and leave gcp_conn_id out"
        )
    environment = {}
    if "key_path" in extra:
        environment["GOOGLE_APPLICATION_CREDENTIALS"] = str(extra["key_path"])
    if "project" in extra:
        environment["GOOGLE_CLOUD_PROJECT"] = str(extra["project"])
    key = extra.get("keyfile_dict")
    return environment, key if key is None or isinstance(key, str) else json.dumps(key)
