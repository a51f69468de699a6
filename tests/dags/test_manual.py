"""The DAGs that the manual shows are DAGs."""

import re
from pathlib import Path
from typing import Any

import paliflow.dags

MANUAL = Path(str(paliflow.dags.__file__)).parent.parent / "docs" / "airflow.md"
HEAD = """
from datetime import timedelta
from airflow.sdk import DAG
from paliflow.operators import EvaluateOperator, FineTuneOperator, PromoteOperator
"""


def test_the_weekly_dag_and_its_approval_parse() -> None:
    blocks = re.findall(r"```python\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    (weekly,) = (block for block in blocks if "with DAG(" in block)
    (approval,) = (block for block in blocks if "ApprovalOperator(" in block)
    shown: dict[str, Any] = {}
    exec(HEAD + weekly, shown)
    tasks = shown["tuned"].dag.task_dict
    upstream = {name: task.upstream_task_ids for name, task in tasks.items()}
    assert upstream == {
        "finetune": set(),
        "new": {"finetune"},
        "old": set(),
        "promote": {"new", "old"},
    }
    with shown["tuned"].dag:
        exec(HEAD + approval, {})
    assert {"subject", "body"} <= set(tasks["approve"].template_fields)
