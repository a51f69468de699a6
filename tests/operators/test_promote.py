"""A promotion is an asset event, and nothing else is."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.sdk import DAG, Asset

from paliflow.configs import Comparison, PromoteSummary
from paliflow.configs.summary import SUMMARY_PREFIX
from paliflow.model import BUNDLED_CHECKPOINT
from paliflow.operators import PromoteOperator, RayJobHook
from paliflow.operators.hook import base_url
from paliflow.operators.outcome import outcome
from paliflow.tests.operators import dag_run
from paliflow.tests.operators.ray_head import TOKEN


def promotion(dag_id: str, registry: Path, **kwargs: Any) -> DAG:
    """A DAG whose one task gives an alias its first model; a second time there is nothing to do."""
    with DAG(dag_id) as dag:
        PromoteOperator(
            task_id="promote",
            registry=str(registry),
            name="digits",
            checkpoint=str(BUNDLED_CHECKPOINT),
            poll_interval=0.5,
            **kwargs,
        )
    return dag


@pytest.mark.slow
def test_another_dag_follows_promotions_and_nothing_else(tmp_path: Path) -> None:
    uri = f"{tmp_path.as_uri()}/digits/production"
    with DAG("follows", schedule=[Asset(uri)], is_paused_upon_creation=False) as follower:
        pass
    dag_run.make_known(follower)
    dag = promotion("promotes", tmp_path)

    (task,) = dag_run.run(dag).get_task_instances()
    summary = task.xcom_pull(task_ids="promote")
    assert (task.state, summary["promoted"]) == ("success", True)
    carried = ("name", "alias", "version", "checkpoint", "checkpoint_sha256", "reason")
    extra = {key: summary[key] for key in carried}
    assert extra["version"] == 1
    assert dag_run.asset_events("promotes") == [("promote", uri, extra)]
    assert dag_run.called_for("follows")

    (task,) = dag_run.run(dag).get_task_instances()
    assert (task.state, task.xcom_pull(task_ids="promote")["promoted"]) == ("success", False)
    assert len(dag_run.asset_events("promotes")) == 1
    assert not dag_run.called_for("follows")


@pytest.mark.slow
def test_a_retry_goes_on_with_the_job_that_promoted(ray: str, tmp_path: Path) -> None:
    tries = []

    def lost_once(context: Any, result: Any) -> None:
        tries.append(result)
        if len(tries) == 1:
            raise RuntimeError("what it returned is lost")

    dag = promotion(
        "promotes_on_ray",
        tmp_path,
        ray_conn_id=ray,
        deferrable=False,
        retries=1,
        retry_delay=0.1,
        post_execute=lost_once,
    )
    (task,) = dag_run.run(dag).get_task_instances()
    assert (task.state, task.try_number) == ("success", 2)
    # Another job would have found nothing to do.
    assert [summary["promoted"] for summary in tries] == [True, True]
    assert len(dag_run.asset_events("promotes_on_ray")) == 1
    (job,) = jobs_of("promotes_on_ray", ray)
    assert job["entrypoint"] == "python -m paliflow.jobs promote"


def jobs_of(dag_id: str, ray: str) -> list[dict[str, Any]]:
    """The Ray jobs that a DAG's tasks have submitted."""
    url = base_url(RayJobHook.get_connection(ray)).join("/api/jobs/")
    jobs = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30).json()
    return [job for job in jobs if (job["metadata"] or {}).get("dag_id") == dag_id]


def test_a_refusal_is_no_failure() -> None:
    figures: dict[str, Any] = {"candidate": 0.5, "incumbent": 0.625, "examples": 64}
    summary = PromoteSummary(
        promoted=False,
        reason="held_out/exact_match is not better",
        comparisons=(Comparison(metric="held_out/exact_match", low=-0.25, wanted=0.01, **figures),),
        registry="/registry",
        name="digits",
        alias="production",
        version=3,
        checkpoint="/models/old.npz",
        checkpoint_sha256="c" * 64,
    )
    task = PromoteOperator(
        task_id="promote",
        registry="/registry",
        name="digits",
        candidate="/new",
        incumbent="/old",
        metric="held_out/exact_match",
    )
    printed = outcome("SUCCEEDED", "", 0, [SUMMARY_PREFIX + summary.model_dump_json()])
    nothing: Any = {}  # no event: not even what it would be written to is needed
    assert task.execute_complete(nothing, printed) == summary.model_dump(mode="json")


@pytest.mark.slow
def test_a_spec_of_megabytes_reaches_a_job_on_a_cluster(ray: str, tmp_path: Path) -> None:
    guards = {f"old/{'x' * 100_000}{number}$HOME": 0.5 for number in range(20)}
    dag = promotion("long_spec", tmp_path, ray_conn_id=ray, deferrable=False, guards=guards)
    (task,) = dag_run.run(dag).get_task_instances()
    assert (task.state, task.xcom_pull(task_ids="promote")["promoted"]) == ("success", True)
    (job,) = jobs_of("long_spec", ray)
    assert len(str(job)) < 10_000
