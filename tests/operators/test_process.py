"""What a job that runs beside Airflow gets to see of Airflow."""

import json
import sys
from pathlib import Path

import pytest

from paliflow.operators import PromoteOperator

SECRET = {
    "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW_CONN_WAREHOUSE",
    "AIRFLOW_VAR_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN",
}  # fmt: skip
NEEDED = {
    "HTTPS_PROXY", "LC_ALL", "GOOGLE_CLOUD_PROJECT", "JAX_PLATFORMS", "XLA_FLAGS", "RAY_ADDRESS",
    "TPU_NAME", "CUDA_VISIBLE_DEVICES",
}  # fmt: skip


@pytest.mark.parametrize("pass_env", [(), ["AWS_*"]])
def test_an_embedded_job_gets_what_it_needs_and_no_secret_of_airflows(
    pass_env: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "python"
    job.write_text(
        "#!/bin/sh\n"
        "names=$(env | cut -d= -f1 | tr '\\n' ' ')\n"
        """echo 'paliflow-summary: {"promoted": false, "reason": "'$names'"}'\n"""
    )
    job.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(job))
    for name in SECRET | NEEDED:
        monkeypatch.setenv(name, "value")
    task = PromoteOperator(
        task_id="promote", registry="/r", name="n", checkpoint="/c", pass_env=pass_env
    )
    got = set(task.execute({})["reason"].split())
    assert got >= NEEDED | {"PATH", "HOME"}
    assert got & SECRET == ({"AWS_SECRET_ACCESS_KEY"} if pass_env else set())


def test_a_spec_of_any_length_reaches_the_job_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "python"
    job.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "told = {'promoted': False, 'arguments': sys.argv[1:], 'given': sys.stdin.read()}\n"
        "print('paliflow-summary: ' + json.dumps(told))\n"
    )
    job.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(job))
    guards = {f"old/{'x' * 10_000}{number}": 0.5 for number in range(800)}
    fields = {"registry": "/r", "name": "n", "checkpoint": "/c", "guards": guards}
    summary = PromoteOperator(task_id="promote", **fields).execute({})
    assert json.loads(summary["given"]) == fields
    assert len(summary["given"]) > 8_000_000
    assert summary["arguments"] == ["-m", "paliflow.jobs", "promote", "-"]
