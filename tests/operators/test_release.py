"""What the manual shows of approvals: a held run is released by who says why, or stays held."""

import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG
from airflow.utils.session import create_session
from sqlalchemy import select

import paliflow.dags
from paliflow.configs import AnnotateSpec
from paliflow.jobs.runs.outputs import read_summary
from paliflow.operators import AnnotateOperator
from paliflow.tests.operators import dag_run
from paliflow.tests.summaries import made_up

MANUAL = Path(str(paliflow.dags.__file__)).parent.parent / "docs" / "gates.md"


def manuals_dag(dag_id: str, folder: Path) -> DAG:
    """The DAG of the page, whose paths are below a folder."""
    (block,) = re.findall(r"```python\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    block = block.replace("gs://bucket", str(folder)).replace('DAG("photos"', f'DAG("{dag_id}"')
    names: dict[str, Any] = {"DAG": DAG, "AnnotateOperator": AnnotateOperator}
    exec(block, names)
    dag: DAG = names["dag"]
    return dag


def hold_back(run: Path, spec: dict[str, Any]) -> None:
    """Leaves the manifest of a run that did not pass its gate."""
    run.mkdir(parents=True)
    spec_json = AnnotateSpec.parse(spec).model_dump(mode="json")
    check = {"name": "share of empty answers", "value": 0.5, "limit": 0.1, "passed": False}
    summary = made_up(str(run), spec=spec_json, quarantined=True, checks=[check], shards=0)
    (run / "_manifest.json").write_text(summary.model_dump_json())


def answer_when_asked(dag_id: str, choice: str, why: str, answered: list[str]) -> None:
    """Does what the button of Airflow's page does, once the task waits."""
    # They take five seconds, whether or not a test here is asked for.
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail

    mine = (TaskInstance.dag_id == dag_id) & (TaskInstance.state == "awaiting_input")
    while True:
        with create_session() as session:
            if waits := session.scalar(select(TaskInstance).where(mine)):
                payload = UpdateHITLDetailPayload(
                    chosen_options=[choice], params_input={"why": why}
                )
                user = SimpleAuthManagerUser(username="ada", role="user")
                update_hitl_detail(dag_id, waits.run_id, "approve", payload, user, session)
                answered.append(choice)
                return
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["Approve", "Reject"])
def test_a_held_run_is_released_if_somebody_approves(choice: str, tmp_path: Path) -> None:
    dag_id = f"approval_{choice.lower()}"
    dag = manuals_dag(dag_id, tmp_path)
    task: Any = dag.get_task("annotate")
    when = datetime(2026, 1, 1, tzinfo=UTC)
    name = when.strftime("%Y%m%dT%H%M%S")
    run = tmp_path / "annotations" / f"run_id={name}"
    hold_back(run, {**task.spec, "run_id": name})

    dag_run.make_known(dag)  # before the thread looks at the database
    answered: list[str] = []
    asked = (dag_id, choice, "a new camera", answered)
    threading.Thread(target=answer_when_asked, args=asked, daemon=True).start()
    finished = dag_run.run(dag, when)

    assert answered == [choice]
    states = {task.task_id: task.state for task in finished.get_task_instances()}
    summary = read_summary(str(run))
    assert summary
    assert states["annotate"] == "failed"
    if choice == "Approve":
        assert (states["approve"], states["release"]) == ("success", "success")
        assert summary.released
        assert (summary.released.why, summary.quarantined) == ("ada: a new camera", False)
        ((task_id, uri, extra),) = dag_run.asset_events(dag_id)
        assert (task_id, uri) == ("release", (tmp_path / "annotations").as_uri())
        assert extra["location"] == str(run)
    else:
        assert (states["approve"], states["release"]) == ("failed", "upstream_failed")
        assert summary.quarantined
        assert dag_run.asset_events(dag_id) == []
