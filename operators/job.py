"""`JobOperator`: one of Paliflow's jobs as one task."""

import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from zipfile import ZipInfo

from airflow.sdk import Asset, AssetAlias, BaseOperator, BaseOperatorLink, Context, XComArg
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowFailException,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from paliflow.configs.base import Spec, SpecError, printable
from paliflow.configs.summary import (
    LABELS_VARIABLE,
    SPEC_VARIABLE,
    SPEC_VARIABLE_BYTES,
    VERSION_VARIABLE,
)
from paliflow.operators import gcp, process
from paliflow.operators.attempts import STATE, is_last_try, job_for
from paliflow.operators.fields import check_fields, refuse_unknown
from paliflow.operators.hook import RayJobHook
from paliflow.operators.kubernetes import KubernetesError
from paliflow.operators.links import RayJobLink
from paliflow.operators.outcome import summary_or_raise
from paliflow.operators.packages import paliflow_package, with_uploads, zipped
from paliflow.operators.rayjob import (
    RayJobCluster,
    cluster_of,
    create_rayjob,
    name_for,
)
from paliflow.operators.rayjob_trigger import RayClusterJobTrigger
from paliflow.operators.trigger import RELAYED, RayJobTrigger
from paliflow.operators.waiting import end, end_at_once, in_thread, start_and_wait

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import OperatorPartial
    from airflow.sdk.definitions.xcom_arg import PlainXComArg


class JobOperator(BaseOperator):
    """Runs a job and returns its summary as plain JSON, without the spec: `task.output["location"]`
    is what of it another task takes.

    A subclass takes the fields of its spec as keyword arguments, all templated. What it announces
    is an event of an `Asset` outlet where the DAG file names it; where it does not, and for mapped
    tasks, of an asset that is added to the `AssetAlias` `<dag_id>.<task_id>`.

    A job that exits with 2 needs the user and fails the task for good; others may be retried. A
    retry goes on with the Ray job if that still runs; clearing, marking and timing out stop it.

    Args:
        ray_conn_id: a connection of type `ray`, whose cluster runs the job. Without one, the job
            is a child process and starts Ray on this machine.
        cluster: instead of a connection, a `RayJobCluster` that is made for the task, runs its job
            and ends with it; or the output of a `CreateRayClusterOperator`, whose cluster several
            tasks share.
        gcp_conn_id: a connection of type `google_cloud_platform`; its `key_path` or `keyfile_dict`
            and its `project` are the job's. On a cluster the `key_path` is there. Without one, the
            job has the Application Default Credentials of the machine it runs on.
        deferrable: wait in the triggerer, not on a worker; `[operators] default_deferrable` of
            Airflow's configuration if not given. Without a connection, no effect.
        poll_interval: seconds between two looks at the Ray job.
        runtime_env: of the Ray job, as Ray defines it; what its `working_dir` and `py_modules` name
            on the worker is uploaded.
        ship: `package` sends Paliflow itself with the job, as it is on this worker: for a cluster
            whose image has what it depends on, and not it or another version of it.
        pass_env: names or patterns (`AWS_*`) of the worker's environment variables that a child
            process gets besides `process.INHERITED`. What Airflow's own variables hold (its
            database, its Fernet key, connections) stays with Airflow unless it is named here.

    Raises:
        SpecError: as the DAG is parsed, for each value that is wrong whatever the run.
    """

    template_fields = ("spec", "ray_conn_id", "gcp_conn_id", "runtime_env", "cluster")
    template_fields_renderers: ClassVar = {"spec": "json", "runtime_env": "json"}
    operator_extra_links: Collection[BaseOperatorLink] = (RayJobLink(),)

    JOB: ClassVar[str]
    """Its name: `python -m paliflow.jobs JOB` runs it."""
    SPEC: ClassVar[type[Spec]]
    """What the job is given."""
    MADE_LATER: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Fields that may be left out, as the operator fills them when the task runs; and what passes
    for each until then."""

    if TYPE_CHECKING:
        # The type that Airflow declares takes no field's name; what it returns does.
        @property
        def output(self) -> PlainXComArg: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Before Airflow, which says of `outptu=` that `output` is missing.
        refuse_unknown(cls, cls.SPEC, kwargs)
        return super().__new__(cls)

    @classmethod
    def partial(cls, **kwargs: Any) -> "OperatorPartial":
        """Checks what is given, which Airflow does when a task runs; the rest is mapped."""
        refuse_unknown(cls, cls.SPEC, kwargs)
        spec = {name: value for name, value in kwargs.items() if name in cls.SPEC.model_fields}
        check_fields(cls.SPEC, spec, whole=False)
        return super().partial(**kwargs)

    def __init__(
        self,
        *,
        ray_conn_id: str | None = None,
        gcp_conn_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 10.0,
        runtime_env: dict[str, Any] | None = None,
        pass_env: Sequence[str] = (),
        ship: Literal["package"] | None = None,
        cluster: RayJobCluster | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {name: kwargs.pop(name) for name in self.SPEC.model_fields if name in kwargs}
        super().__init__(**{"multiple_outputs": True, **kwargs})
        check_fields(self.SPEC, {**self.MADE_LATER, **spec})
        _check_environment(ray_conn_id or cluster, runtime_env, pass_env)
        if cluster and ray_conn_id:
            raise ValueError(
                f"cluster and ray_conn_id={ray_conn_id!r}: give one of them; the cluster is one "
                "that Airflow makes"
            )
        if cluster and set(runtime_env or ()) - {"env_vars"}:
            raise ValueError(
                f"runtime_env={runtime_env!r}: with cluster it may have env_vars alone; code is in "
                "the cluster's image"
            )
        if ship not in (None, "package"):
            raise ValueError(f"ship={ship!r}: 'package', or leave it out")
        if ship and not ray_conn_id:
            raise ValueError(
                f"ship={ship!r} needs a ray_conn_id: a child process and a cluster's image have "
                "Paliflow"
            )
        self.spec = spec
        self.ray_conn_id = ray_conn_id
        self.gcp_conn_id = gcp_conn_id
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.runtime_env = runtime_env
        self.pass_env = tuple(pass_env)
        self.ship = ship
        self.cluster = cluster
        self._stop: Callable[[], None] | None = None
        self._alias = AssetAlias(f"{self.dag_id}.{self.task_id}")
        self._outlet = self._asset_outlet() or self._alias
        self._others = self.outlets
        if self._outlet not in self.outlets:
            self.outlets = [*self.outlets, self._outlet]

    @abstractmethod
    def _asset_outlet(self) -> Asset | None:
        """The asset of which every success is an event, if the DAG file names it."""

    @abstractmethod
    def _asset_event(self, summary: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """The URI of the asset that the job has changed and the event's extra; None if it has not.

        Of an asset that is an outlet, Airflow makes an event in any case.
        """

    def _log_lines(self, summary: dict[str, Any]) -> Iterable[str]:
        """What the task's log says in the end, where the job has not said it itself."""
        return ()

    def _render_spec(self, context: Context) -> Spec:
        """The spec, its templates rendered.

        Raises:
            SpecError: for each value that is wrong.
        """
        return self.SPEC.parse(self.spec)

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the job; returns its summary, now or in `execute_complete`."""
        try:
            spec = self._render_spec(context)
        except SpecError as error:
            raise AirflowFailException(printable(str(error))) from None
        if not self.ray_conn_id and not self.cluster:
            with gcp.local_environment(self.gcp_conn_id) as environment:
                child = process.start(self.JOB, spec, environment, self.pass_env)
                self._stop = partial(process.terminate, child)
                return self.execute_complete(context, process.follow(child, self.log))

        ti, store = context["ti"], context["task_state_store"]
        try:
            event = self._on_ray(spec, ti, store)
        except KubernetesError:
            # What it asked for may be there, though the answer was lost. The next try takes it up.
            if is_last_try(ti):
                self._give_up(store)
            raise
        return self.execute_complete(context, event)

    def _on_ray(self, spec: Spec, ti: Any, store: Any) -> dict[str, Any]:
        """Has Ray do the job; its `outcome`, unless the triggerer waits for it."""
        runtime_env, left = self._runtime_env(), store.get(STATE)
        job: dict[str, Any]
        if self.cluster:
            cluster, earlier = cluster_of(self.cluster), left and left["submission_id"]
            cleared = bool(left) and left["max_tries"] != ti.max_tries
            name = in_thread(name_for(cluster, "RayJob", earlier, cleared=cleared))
            job = {"submission_id": name, "max_tries": ti.max_tries}
        else:
            assert self.ray_conn_id
            ray = RayJobHook(self.ray_conn_id)
            job = in_thread(job_for(ray, left, ti.max_tries))
            RayJobLink().push(ti, ray.page(job["submission_id"]))
        # Stored first: whatever happens to the submission, the next try knows its id.
        store.set(STATE, job)
        trigger = self._trigger(job["submission_id"])
        self._stop = partial(end_at_once, trigger, self.log)
        if self.deferrable:
            ti.xcom_push(RELAYED, 0)
        start = self._start(trigger, spec, runtime_env, ti)
        return start_and_wait(self, start, trigger, partial(self._give_up, store))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Stops the job where Airflow has given up waiting for it: nobody else would."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout):
            self._give_up(context["task_state_store"])
            raise

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """The summary of a job that ended, whose lines have been relayed already."""
        # What was out of sight for long may go on: the next try looks for it.
        if self.cluster and (event["status"] != "UNREACHABLE" or is_last_try(context["ti"])):
            self._give_up(context["task_state_store"])
        summary = summary_or_raise(event)
        if asset_event := self._asset_event(summary):
            self._announce(context, *asset_event)
        for line in self._log_lines(summary):
            self.log.info("%s", printable(line))
        return summary

    def _give_up(self, store: Any) -> None:
        """Ends the Ray job, and the cluster that was made for it. What cannot be ended now, the
        next try finds; without one, a RayJob's deadlines end it."""
        job = store.get(STATE)
        if job and end(self._trigger(job["submission_id"]), self.log):
            store.delete(STATE)  # while it ends, the next try must not take it up
        self._stop = None  # `on_kill`, which Airflow calls after a timeout, need not do the same

    def on_kill(self) -> None:
        """Ends the child process, or the Ray job if a worker is waiting for it."""
        if self._stop:
            self._stop()

    def _announce(self, context: Context, uri: str, extra: dict[str, Any]) -> None:
        if context["ti"].is_mapped and self._outlet not in self._others:
            # Of a mapped task Airflow knows the outlets that `.partial` names, and lets an alias
            # alone be one besides.
            self._outlet = self._alias
            self.outlets = [*self._others, self._outlet]
        asset_event = context["outlet_events"][self._outlet]
        if isinstance(self._outlet, AssetAlias):
            asset_event.add(Asset(uri), extra=extra)
        else:
            asset_event.extra = extra

    def _runtime_env(self) -> dict[str, Any]:
        runtime_env = self.runtime_env or {}
        google = gcp.cluster_environment(self.gcp_conn_id)
        labels = json.dumps({"dag": self.dag_id, "task": self.task_id})
        own = {VERSION_VARIABLE: version("paliflow"), LABELS_VARIABLE: labels}
        return {**runtime_env, "env_vars": {**google, **runtime_env.get("env_vars", {}), **own}}

    def _trigger(self, submission_id: str) -> RayJobTrigger:
        if self.cluster:
            return RayClusterJobTrigger(
                cluster=cluster_of(self.cluster).model_dump(mode="json"),
                submission_id=submission_id,
                poll_interval=self.poll_interval,
            )
        assert self.ray_conn_id
        return RayJobTrigger(
            ray_conn_id=self.ray_conn_id,
            submission_id=submission_id,
            poll_interval=self.poll_interval,
        )

    async def _start(
        self, trigger: RayJobTrigger, spec: Spec, runtime_env: dict[str, Any], ti: Any
    ) -> None:
        if self.cluster:
            cluster, variables = cluster_of(self.cluster), runtime_env["env_vars"]
            await create_rayjob(cluster, trigger.submission_id, self.JOB, spec, variables)
        else:
            await self._submit(trigger, spec, runtime_env, ti)
        self.log.info("Ray job %s does it", trigger.submission_id)

    async def _submit(
        self, trigger: RayJobTrigger, spec: Spec, runtime_env: dict[str, Any], ti: Any
    ) -> None:
        names = ("dag_id", "task_id", "run_id", "map_index", "try_number")
        entrypoint = f"python -m paliflow.jobs {self.JOB}"
        # Ray replaces $NAME in environment variables; in JSON a dollar sign can hide from that.
        given = spec.given().replace("$", r"\u0024")
        async with RayJobHook(trigger.ray_conn_id) as ray:
            runtime_env = await with_uploads(ray, runtime_env)
            if self.ship:
                package = await ray.upload(*paliflow_package())
                runtime_env["py_modules"] = [*runtime_env.get("py_modules", ()), package]
            if len(given.encode()) <= SPEC_VARIABLE_BYTES:
                runtime_env["env_vars"][SPEC_VARIABLE] = given
            else:  # as a package, beside the modules of the job
                file = f"{trigger.submission_id}/spec.json"
                package = await ray.upload(*zipped([(ZipInfo(file), given.encode())]))
                runtime_env["py_modules"] = [*runtime_env.get("py_modules", ()), package]
                entrypoint = f"{entrypoint} {file}"
            await ray.submit(
                trigger.submission_id,
                entrypoint,
                runtime_env=runtime_env,
                metadata={name: str(getattr(ti, name)) for name in names},
            )


def _check_environment(
    where: object, runtime_env: dict[str, Any] | None, pass_env: Sequence[str]
) -> None:
    """
    Raises:
        ValueError: an argument is of the other place where a job runs, or no list.
    """
    if runtime_env and not where:
        raise ValueError(f"runtime_env={runtime_env!r} needs a ray_conn_id: it is of a Ray job")
    if pass_env and where:
        raise ValueError(
            f"pass_env={pass_env!r}: it is of a job on the worker; a Ray job's variables are "
            "runtime_env's env_vars"
        )
    if isinstance(pass_env, str):
        raise ValueError(f"pass_env={pass_env!r}: give a list of names or patterns")


def asset_uri(location: str) -> str:
    """The `Asset` that stands for a folder: `gs://...` or `file:///...`."""
    path = Path(location).expanduser().absolute()
    return location.rstrip("/") if "://" in location else path.as_uri()
