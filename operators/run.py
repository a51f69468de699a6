"""`RunOperator`: a job that is a run, with a name and a folder; `OutputOperator`: one on a run."""

import hashlib
import json
import re
from types import MappingProxyType
from typing import Any, ClassVar

from airflow.sdk import Asset, Context

from paliflow.configs.run import RunSpec
from paliflow.operators.fields import rendered_later
from paliflow.operators.job import JobOperator, asset_uri
from paliflow.operators.links import OutputLink, RayJobLink, browsable


class OutputOperator(JobOperator):
    """A job on a run of `output`; what is announced is the asset of `output`."""

    ANNOUNCED: ClassVar[tuple[str, ...]]
    """What of the summary is in the asset event, besides `run_id`, `output` and `location`."""

    def _asset_outlet(self) -> Asset | None:
        output = self.spec["output"]
        return None if rendered_later(output) else Asset(asset_uri(output))

    def _asset_event(self, summary: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        # A cluster may run an older Paliflow, whose summary has less.
        named = ("run_id", "location", *self.ANNOUNCED)
        extra = {key: summary[key] for key in named if key in summary}
        extra["output"] = self.spec["output"]
        return asset_uri(self.spec["output"]), extra


class RunOperator(OutputOperator):
    """A job that writes to `<output>/run_id=<run_id>/`.

    `run_id` may be left out: it is then made from DAG, task, DAG run and map index, so that a
    retry resumes what its predecessor left. A task that is cleared starts its run over, in a
    folder of its own, unless it was unfinished and is asked the same.
    """

    operator_extra_links = (RayJobLink(), OutputLink())

    SPEC: ClassVar[type[RunSpec]]
    MADE_LATER = MappingProxyType({"run_id": "made-later"})

    def _render_spec(self, context: Context) -> RunSpec:
        ti = context["ti"]
        run_id = self.spec.get("run_id") or default_run_id(
            ti.dag_id, ti.task_id, ti.run_id, ti.map_index
        )
        # Airflow raises `max_tries` when a user clears a task that no worker is running; the run of
        # one that is running is unfinished, and resumed.
        spec = self.SPEC.parse({"generation": ti.max_tries, **self.spec, "run_id": run_id})
        OutputLink().push(ti, browsable(spec.location))
        return spec

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        summary = super().execute_complete(context, event)
        # A run that was started over has another folder than its run_id says.
        OutputLink().push(context["ti"], browsable(summary["location"]))
        return summary


def default_run_id(dag_id: str, task_id: str, run_id: str, map_index: int | None) -> str:
    """A valid `RunSpec.run_id`, the same for every try and for no other task instance."""
    names = [dag_id, task_id, run_id]
    if map_index is not None and map_index >= 0:
        names.append(str(map_index))
    readable = re.sub(r"[^A-Za-z0-9._+-]", "-", ".".join(names)).lstrip("._+-")
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]
    return f"{readable[:180]}-{digest}".lstrip("-")
