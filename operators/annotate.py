"""`AnnotateOperator`: one annotation run as one task."""

import asyncio
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import Asset, AssetAlias, BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.summary import SPEC_VARIABLE
from paliflow.operators import process
from paliflow.operators.fields import check_fields, rendered_later, takes_fields_of
from paliflow.operators.hook import RayJobHook
from paliflow.operators.outcome import conclude
from paliflow.operators.trigger import RayJobTrigger

ENTRYPOINT = "python -m paliflow.jobs"


class AnnotateOperator(BaseOperator):
    """Annotates images: takes the fields of `AnnotateSpec` as keyword arguments, all templated.

    `run_id` may be left out: it is then made from DAG, task, DAG run and map index, so that a
    retry resumes what its predecessor left. Returns the `RunSummary` as plain JSON, without the
    spec. The output is an `Asset` outlet where the DAG file names it; where `output` is templated
    it is added to the `AssetAlias` `<dag_id>.<task_id>`. Its events carry `run_id`, `location`,
    `rows` and `errors`.

    A job that exits with 2 needs the user and fails the task for good; others may be retried.

    Args:
        ray_conn_id: a connection of type `ray`, whose cluster runs the job. Without one, the job
            is a child process and starts Ray on this machine.
        deferrable: wait in the triggerer, not on a worker. Without a connection, no effect.
        poll_interval: seconds between two looks at the Ray job.
        runtime_env: of the Ray job, as Ray defines it.

    Raises:
        SpecError: as the DAG is parsed, for each value that is wrong whatever the run.
    """

    template_fields = ("spec", "ray_conn_id", "runtime_env")
    template_fields_renderers: ClassVar = {"spec": "json", "runtime_env": "json"}

    @takes_fields_of(AnnotateSpec, optional=frozenset({"run_id"}))
    def __init__(
        self,
        *,
        ray_conn_id: str | None = None,
        deferrable: bool = True,
        poll_interval: float = 10.0,
        runtime_env: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {name: kwargs.pop(name) for name in AnnotateSpec.model_fields if name in kwargs}
        super().__init__(**kwargs)
        check_fields(AnnotateSpec, spec)
        if runtime_env and not ray_conn_id:
            raise ValueError(f"runtime_env={runtime_env!r} needs a ray_conn_id: it is of a Ray job")
        self.spec = spec
        self.ray_conn_id = ray_conn_id
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.runtime_env = runtime_env
        self._stop: Callable[[], None] | None = None
        self._outlet: Asset | AssetAlias = (
            AssetAlias(f"{self.dag_id}.{self.task_id}")
            if rendered_later(spec["output"])
            else Asset(asset_uri(spec["output"]))
        )
        if self._outlet not in self.outlets:
            self.outlets = [*self.outlets, self._outlet]

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the job; returns its summary, now or in `execute_complete`."""
        try:
            spec = AnnotateSpec.parse({**self.spec, "run_id": self._run_id(context)})
        except SpecError as error:
            raise AirflowFailException(str(error)) from None
        if not self.ray_conn_id:
            child = process.start(spec)
            self._stop = partial(process.terminate, child)
            return self.execute_complete(context, process.follow(child, self.log))

        ti = context["ti"]
        limit = self.execution_timeout
        trigger = RayJobTrigger(
            ray_conn_id=self.ray_conn_id,
            # Airflow gives every try a new id: a submission repeated within a try is one job.
            submission_id=f"paliflow-{ti.id}",
            poll_interval=self.poll_interval,
            deadline=time.time() + limit.total_seconds() if limit else None,
        )
        self._stop = partial(_run_in_thread, trigger.on_kill)
        asyncio.run(self._submit(trigger, spec, ti))
        self.log.info("Submitted Ray job %s for run %s", trigger.submission_id, spec.run_id)
        if self.deferrable:
            self.defer(trigger=trigger, method_name="execute_complete")
        return self.execute_complete(context, asyncio.run(_event_of(trigger)))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """The summary of a job that ended, whose lines have been relayed already."""
        summary = conclude(event)
        extra = {key: summary[key] for key in ("run_id", "location", "rows", "errors")}
        asset_event = context["outlet_events"][self._outlet]
        if isinstance(self._outlet, AssetAlias):
            asset_event.add(Asset(asset_uri(self.spec["output"])), extra=extra)
        else:
            asset_event.extra = extra
        self.log.info("%(rows)d rows, %(errors)d of them errors, in %(location)s", summary)
        return summary

    def on_kill(self) -> None:
        """Ends the child process, or the Ray job if a worker is waiting for it."""
        if self._stop:
            self._stop()

    async def _submit(self, trigger: RayJobTrigger, spec: AnnotateSpec, ti: Any) -> None:
        runtime_env = self.runtime_env or {}
        # Ray replaces $NAME in environment variables; in JSON a dollar sign can hide from that.
        variable = {SPEC_VARIABLE: spec.model_dump_json().replace("$", r"\u0024")}
        async with RayJobHook(trigger.ray_conn_id) as ray:
            await ray.submit(
                trigger.submission_id,
                ENTRYPOINT,
                runtime_env={
                    **runtime_env,
                    "env_vars": {**runtime_env.get("env_vars", {}), **variable},
                },
                metadata={
                    "dag_id": ti.dag_id,
                    "task_id": ti.task_id,
                    "run_id": ti.run_id,
                    "try_number": str(ti.try_number),
                },
            )

    def _run_id(self, context: Context) -> str:
        ti = context["ti"]
        given = self.spec.get("run_id")
        return given or default_run_id(ti.dag_id, ti.task_id, ti.run_id, ti.map_index)


def default_run_id(dag_id: str, task_id: str, run_id: str, map_index: int | None) -> str:
    """A valid `AnnotateSpec.run_id`, the same for every try and for no other task instance."""
    names = [dag_id, task_id, run_id]
    if map_index is not None and map_index >= 0:
        names.append(str(map_index))
    readable = re.sub(r"[^A-Za-z0-9._+-]", "-", ".".join(names)).lstrip("._+-")
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]
    return f"{readable[:180]}-{digest}".lstrip("-")


def asset_uri(output: str) -> str:
    """The `Asset` that stands for an output folder: `gs://...` or `file:///...`."""
    path = Path(output).expanduser().absolute()
    return output.rstrip("/") if "://" in output else path.as_uri()


async def _event_of(trigger: RayJobTrigger) -> dict[str, Any]:
    payload: dict[str, Any] = (await anext(trigger.run())).payload
    return payload


def _run_in_thread(coroutine: Callable[[], Any]) -> None:
    # A signal interrupts the main thread, whose event loop is waiting for the job.
    thread = threading.Thread(target=lambda: asyncio.run(coroutine()), daemon=True)
    thread.start()
    thread.join(timeout=process.GRACE_S)
