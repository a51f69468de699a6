"""`CreateRayClusterOperator`, `DeleteRayClusterOperator`: a Ray cluster that tasks share."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from airflow.sdk import BaseOperator, Context, XComArg
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from paliflow.configs.manifests import ray_cluster
from paliflow.operators.attempts import is_last_try
from paliflow.operators.kubernetes import KubernetesError
from paliflow.operators.ray_cluster_trigger import RayClusterTrigger
from paliflow.operators.rayjob import (
    RayJobCluster,
    SharedRayCluster,
    cluster_of,
    delete_object,
    name_for,
)
from paliflow.operators.waiting import end, end_at_once, in_thread, start_and_wait

_STATE = "ray_cluster"
"""The key in Airflow's task state store of `{"name", "max_tries"}`."""


class CreateRayClusterOperator(BaseOperator):
    """Has KubeRay start a Ray cluster, and waits until all of its hosts are there.

    Returns what the `cluster` of other operators is, and of the `DeleteRayClusterOperator` that
    ends it. A cluster that does not come within its `start_deadline` is deleted, as is one whose
    task a user ends or clears.

    Args:
        cluster: its hosts; `deadline` is of each job on it.
        deferrable: wait in the triggerer, not on a worker; `[operators] default_deferrable` of
            Airflow's configuration if not given.
        poll_interval: seconds between two looks at the cluster.
    """

    def __init__(
        self,
        *,
        cluster: RayJobCluster,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(cluster, RayJobCluster):
            raise ValueError(f"cluster={cluster!r}: a RayJobCluster, which says what hosts it has")
        self.cluster = cluster
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self._stop: Callable[[], None] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Makes the cluster; returns what others need of it, now or in `execute_complete`."""
        ti, store = context["ti"], context["task_state_store"]
        try:
            name = self._name(ti, store)
        except KubernetesError:
            if is_last_try(ti):  # nobody else would end what an earlier try has left
                self._give_up(store)
            raise
        # Stored first: whatever happens to the request, the next try knows the name.
        store.set(_STATE, {"name": name, "max_tries": ti.max_tries})
        trigger = self._trigger(name)
        self._stop = partial(end_at_once, trigger, self.log)
        try:
            give_up = partial(self._give_up, store)
            event = start_and_wait(self, self._create(name), trigger, give_up)
        except KubernetesError:  # whose answer may have been lost: nothing ends a RayCluster
            self._give_up(store)
            raise
        return self.execute_complete(context, event)

    def _name(self, ti: Any, store: Any) -> str:
        """The name of the cluster that an earlier try has left, or a new one."""
        left: Any = store.get(_STATE)
        # Airflow raises it when a user clears a task that no worker is running (`job_for`).
        cleared = bool(left) and left["max_tries"] != ti.max_tries
        earlier = left and left["name"]
        return in_thread(name_for(self.cluster, "RayCluster", earlier, cleared=cleared))

    def _trigger(self, name: str) -> RayClusterTrigger:
        return RayClusterTrigger(
            cluster=self._shared(name).model_dump(mode="json"),
            until=time.time() + self.cluster.start_deadline,
            poll_interval=self.poll_interval,
        )

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Deletes the cluster where Airflow has given up waiting for it: nobody else would."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout):
            self._give_up(context["task_state_store"])
            raise

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """What others need of a cluster that is there.

        Raises:
            AirflowException: it did not come, and is deleted.
        """
        if event["error"]:
            self._give_up(context["task_state_store"])
            raise AirflowException(f"RayCluster {event['name']}: {event['error']}")
        return self._shared(event["name"]).model_dump(mode="json")

    def on_kill(self) -> None:
        """Deletes the cluster, if a worker is making it or waiting for it."""
        if self._stop:
            self._stop()

    async def _create(self, name: str) -> None:
        manifest = ray_cluster(name, self.cluster, self.cluster.ray_version)
        async with self.cluster.hook() as kubernetes:
            try:
                await kubernetes.create(manifest)
            except KubernetesError as error:
                if error.http_status in (400, 422):  # the next try would be refused, too
                    raise AirflowFailException(str(error)) from None
                raise
        self.log.info("RayCluster %s in namespace %s was asked for", name, self.cluster.namespace)

    def _shared(self, name: str) -> SharedRayCluster:
        own = {"namespace", "kubernetes_conn_id", "deadline"}
        return SharedRayCluster(name=name, **self.cluster.model_dump(include=own))

    def _give_up(self, store: Any) -> None:
        """Deletes the cluster. One that cannot be deleted now, the next try finds."""
        left = store.get(_STATE)
        if left and end(self._trigger(left["name"]), self.log):
            store.delete(_STATE)
        self._stop = None  # `on_kill`, which Airflow calls after a timeout, need not do the same


class DeleteRayClusterOperator(BaseOperator):
    """Deletes a Ray cluster that a `CreateRayClusterOperator` has made, and whatever runs on it.

    As a teardown it runs whether or not the tasks between have succeeded.

    Args:
        cluster: the output of the task that made it.
    """

    template_fields = ("cluster",)

    def __init__(self, *, cluster: XComArg | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Context) -> None:
        """Deletes it; does nothing if it is gone."""
        cluster = cluster_of(self.cluster)
        if not isinstance(cluster, SharedRayCluster):
            raise AirflowFailException("cluster: give the output of a CreateRayClusterOperator")
        delete_object(cluster, "RayCluster", cluster.name)
        self.log.info("RayCluster %s in namespace %s is deleted", cluster.name, cluster.namespace)
