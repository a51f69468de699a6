"""`AnnotateOperator`: one annotation run as one task."""

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import Asset, AssetAlias, BaseOperator, Context
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.summary import SPEC_VARIABLE
from paliflow.operators import gcp, process
from paliflow.operators.attempts import STATE, job_for
from paliflow.operators.fields import check_fields, rendered_later, takes_fields_of
from paliflow.operators.hook import RayJobError, RayJobHook
from paliflow.operators.links import OutputLink, RayJobLink, browsable
from paliflow.operators.outcome import conclude
from paliflow.operators.trigger import RELAYED, RayJobTrigger

ENTRYPOINT = "python -m paliflow.jobs annotate"


class AnnotateOperator(BaseOperator):
    """Annotates images: takes the fields of `AnnotateSpec` as keyword arguments, all templated.

    `run_id` may be left out: it is then made from DAG, task, DAG run and map index, so that a
    retry resumes what its predecessor left. Returns the `RunSummary` as plain JSON, without the
    spec. The output is an `Asset` outlet where the DAG file names it; where `output` is templated
    or the task is mapped, it is added to the `AssetAlias` `<dag_id>.<task_id>`. Its events carry
    `run_id`, `output`, `location`, `rows` and `errors`.

    A job that exits with 2 needs the user and fails the task for good; others may be retried. A
    retry goes on with the Ray job if that still runs; clearing, marking and timing out stop it.

    Args:
        ray_conn_id: a connection of type `ray`, whose cluster runs the job. Without one, the job
            is a child process and starts Ray on this machine.
        gcp_conn_id: a connection of type `google_cloud_platform`; its `key_path` or `keyfile_dict`
            and its `project` are the job's. On a cluster the `key_path` is there. Without one, the
            job has the Application Default Credentials of the machine it runs on.
        deferrable: wait in the triggerer, not on a worker. Without a connection, no effect.
        poll_interval: seconds between two looks at the Ray job.
        runtime_env: of the Ray job, as Ray defines it.

    Raises:
        SpecError: as the DAG is parsed, for each value that is wrong whatever the run.
    """

    template_fields = ("spec", "ray_conn_id", "gcp_conn_id", "runtime_env")
    template_fields_renderers: ClassVar = {"spec": "json", "runtime_env": "json"}
    operator_extra_links = (RayJobLink(), OutputLink())

    @takes_fields_of(AnnotateSpec, optional=frozenset({"run_id"}))
    def __init__(
        self,
        *,
        ray_conn_id: str | None = None,
        gcp_conn_id: str | None = None,
        deferrable: bool = True,
        poll_interval: float = 10.0,
        runtime_env: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {name: kwargs.pop(name) for name in AnnotateSpec.model_fields if name in kwargs}
        super().__init__(**kwargs)
        check_fields(AnnotateSpec, {"run_id": "made-later", **spec})
        if runtime_env and not ray_conn_id:
            raise ValueError(f"runtime_env={runtime_env!r} needs a ray_conn_id: it is of a Ray job")
        self.spec = spec
        self.ray_conn_id = ray_conn_id
        self.gcp_conn_id = gcp_conn_id
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.runtime_env = runtime_env
        self._stop: Callable[[], None] | None = None
        self._alias = AssetAlias(f"{self.dag_id}.{self.task_id}")
        self._outlet: Asset | AssetAlias = (
            self._alias if rendered_later(spec["output"]) else Asset(asset_uri(spec["output"]))
        )
        self._others = self.outlets
        if self._outlet not in self.outlets:
            self.outlets = [*self.outlets, self._outlet]

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the job; returns its summary, now or in `execute_complete`."""
        try:
            spec = AnnotateSpec.parse({**self.spec, "run_id": self._run_id(context)})
        except SpecError as error:
            raise AirflowFailException(str(error)) from None
        ti = context["ti"]
        OutputLink().push(ti, browsable(spec.location))
        if not self.ray_conn_id:
            with gcp.local_environment(self.gcp_conn_id) as environment:
                child = process.start("annotate", spec, environment)
                self._stop = partial(process.terminate, child)
                return self.execute_complete(context, process.follow(child, self.log))

        runtime_env = self._runtime_env(spec)
        ray = RayJobHook(self.ray_conn_id)
        store = context["task_state_store"]
        job = asyncio.run(job_for(ray, store.get(STATE), ti.max_tries))
        # Stored first: whatever happens to the submission, the next try knows its id.
        store.set(STATE, job)
        RayJobLink().push(ti, ray.page(job["submission_id"]))
        trigger = self._trigger(job["submission_id"])
        self._stop = partial(_run_in_thread, trigger.on_kill)
        asyncio.run(self._submit(trigger, runtime_env, ti))
        self.log.info("Ray job %s does run %s", trigger.submission_id, spec.run_id)
        if self.deferrable:
            ti.xcom_push(RELAYED, 0)
            self.defer(
                trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout
            )
        try:
            event = asyncio.run(trigger.follow())
        except AirflowTaskTimeout:
            store.delete(STATE)  # Airflow calls on_kill next
            raise
        return self.execute_complete(context, event)

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Stops the job where Airflow has given up waiting for it: nobody else would."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout):
            store = context["task_state_store"]
            job: Any = store.get(STATE)
            try:
                asyncio.run(self._trigger(job["submission_id"]).on_kill())
                store.delete(STATE)  # while it ends, the next try must not take it up
            except RayJobError as error:
                self.log.warning("Ray job %s may still run: %s", job["submission_id"], error)
            raise

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """The summary of a job that ended, whose lines have been relayed already."""
        summary = conclude(event)
        extra = {key: summary[key] for key in ("run_id", "location", "rows", "errors")}
        extra["output"] = self.spec["output"]
        if context["ti"].is_mapped and self._outlet not in self._others:
            # Of a mapped task Airflow knows the outlets that `.partial` names, and lets an alias
            # alone be one besides.
            self._outlet = self._alias
            self.outlets = [*self._others, self._outlet]
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

    def _runtime_env(self, spec: AnnotateSpec) -> dict[str, Any]:
        runtime_env = self.runtime_env or {}
        google = gcp.cluster_environment(self.gcp_conn_id)
        # Ray replaces $NAME in environment variables; in JSON a dollar sign can hide from that.
        variable = {SPEC_VARIABLE: spec.model_dump_json().replace("$", r"\u0024")}
        env_vars = {**google, **runtime_env.get("env_vars", {}), **variable}
        return {**runtime_env, "env_vars": env_vars}

    def _trigger(self, submission_id: str) -> RayJobTrigger:
        assert self.ray_conn_id
        return RayJobTrigger(
            ray_conn_id=self.ray_conn_id,
            submission_id=submission_id,
            poll_interval=self.poll_interval,
        )

    async def _submit(self, trigger: RayJobTrigger, runtime_env: dict[str, Any], ti: Any) -> None:
        names = ("dag_id", "task_id", "run_id", "map_index", "try_number")
        async with RayJobHook(trigger.ray_conn_id) as ray:
            await ray.submit(
                trigger.submission_id,
                ENTRYPOINT,
                runtime_env=runtime_env,
                metadata={name: str(getattr(ti, name)) for name in names},
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


def _run_in_thread(coroutine: Callable[[], Any]) -> None:
    # A signal interrupts the main thread, whose event loop is waiting for the job.
    thread = threading.Thread(target=lambda: asyncio.run(coroutine()), daemon=True)
    thread.start()
    thread.join(timeout=process.GRACE_S)
