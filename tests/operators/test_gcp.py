"""What of a Google connection reaches a job, and what never does."""

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from paliflow.operators import gcp

KEY = {"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\nhidden"}


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Defines the connection `google` with these extras."""

    def define(conn_type: str = "google_cloud_platform", **extra: Any) -> None:
        connection = json.dumps({"conn_type": conn_type, "extra": extra})
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE", connection)

    return define


@pytest.mark.parametrize("key", [KEY, json.dumps(KEY)])
def test_a_key_is_a_private_file_for_as_long_as_the_job_runs(google: Any, key: Any) -> None:
    google(keyfile_dict=key, project="a-project")
    with gcp.local_environment("google") as environment:
        file = Path(environment["GOOGLE_APPLICATION_CREDENTIALS"])
        assert json.loads(file.read_text()) == KEY
        assert file.stat().st_mode & 0o777 == 0o600
        assert environment["GOOGLE_CLOUD_PROJECT"] == "a-project"
    assert not file.exists()
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ


def test_a_key_that_the_connection_holds_never_goes_to_a_cluster(google: Any) -> None:
    google(keyfile_dict=KEY)
    with pytest.raises(AirflowFailException, match=r"'google'.*dashboard.*key_path") as refused:
        gcp.cluster_environment("google")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("prefix", ["", "extra__google_cloud_platform__"])
def test_a_path_and_a_project_are_no_secret(google: Any, prefix: str) -> None:
    google(**{f"{prefix}key_path": "/etc/key.json", f"{prefix}project": "p", "num_retries": 5})
    expected = {"GOOGLE_APPLICATION_CREDENTIALS": "/etc/key.json", "GOOGLE_CLOUD_PROJECT": "p"}
    assert gcp.cluster_environment("google") == expected
    with gcp.local_environment("google") as environment:
        assert environment == expected


def test_without_a_connection_the_machine_has_its_own_credentials() -> None:
    assert gcp.cluster_environment(None) == {}


@pytest.mark.parametrize(
    ("connection", "names"),
    [
        ({"impersonation_chain": "someone@example.com"}, "impersonation_chain cannot be passed on"),
        ({"key_path": "/k", "key_secret_name": "s"}, "key_secret_name cannot"),
        ({"conn_type": "aws"}, "type 'aws'"),
    ],
)
def test_another_identity_is_refused_and_not_dropped(
    google: Any, connection: dict[str, str], names: str
) -> None:
    google(**connection)
    with pytest.raises(AirflowFailException, match=f"'google'.*{names}"):
        gcp.cluster_environment("google")


def test_a_key_that_a_killed_worker_left_is_gone_at_the_next_start(
    google: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    google(keyfile_dict=KEY)
    if not (worker := os.fork()):
        with gcp.local_environment("google"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(worker, 0)
    assert len(keys_in(tmp_path)) == 1
    with gcp.local_environment("google") as first, gcp.local_environment("google") as second:
        held = {each["GOOGLE_APPLICATION_CREDENTIALS"] for each in (first, second)}
        assert keys_in(tmp_path) == held
        assert len(held) == 2
        with gcp.local_environment(None):
            assert keys_in(tmp_path) >= held
    assert keys_in(tmp_path) == set()


def keys_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("gcp-*.json") if path.stat().st_size}
