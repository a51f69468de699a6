"""A run's figures for Prometheus, by Ray's metrics: what every driver reports while it works.

Ray gives each name the prefix `ray_`, and counters the suffix `_total`, and serves them on the
metrics port of the node that the driver is on. `deploy/grafana/paliflow.json` shows them.
"""

import json
import os
import re
from dataclasses import asdict

from ray.util.metrics import Counter, Gauge

from paliflow.configs.summary import LABELS_VARIABLE
from paliflow.jobs.fleet.scheduler import FleetStatus, ShardResult

_TAGS = ("run", "dag", "task")
_KIND = re.compile(r"[^:=\d'\"(]*")
_KIND_CHARACTERS = 40


class RunMetrics:
    """Counts what a run's shards report, and gauges its fleet."""

    def __init__(self, run_id: str) -> None:
        """Needs a connection to Ray. DAG and task are in the environment, if Airflow put them."""
        labels = json.loads(os.environ.get(LABELS_VARIABLE, "{}"))
        tags = {"run": run_id} | {name: str(labels.get(name, "")) for name in ("dag", "task")}

        def counter(name: str, said: str, *more: str) -> Counter:
            made = Counter(f"paliflow_{name}", said, (*_TAGS, *more))
            made.set_default_tags(tags)
            return made

        def gauge(name: str, said: str, *more: str) -> Gauge:
            made = Gauge(f"paliflow_{name}", said, (*_TAGS, *more))
            made.set_default_tags(tags)
            return made

        self._inputs = counter("inputs", "Inputs that are done")
        self._errors = counter("errors", "Inputs that failed, by kind of error", "kind")
        self._tokens = counter("tokens", "Tokens generated")
        self._chip_seconds = counter("chip_seconds", "Seconds that chips were held", "device")
        self._seconds = counter("stage_seconds", "Seconds of actors, by stage", "stage")
        self._preemptions = counter("preemptions", "Actors lost to preempted nodes")
        self._actors = gauge("actors", "Actors, by state", "state")
        self._queue = gauge("queue", "Shards that no actor has")
        self._told = 0  # preemptions

    def add(self, done: ShardResult, fleet: FleetStatus) -> None:
        """Counts; may be called with nothing new."""
        if done.inputs:
            self._inputs.inc(done.inputs)
        for reason in done.failures:
            self._errors.inc(1, {"kind": kind_of(reason)})
        if done.tokens:
            self._tokens.inc(done.tokens)
        if done.chip_seconds:
            self._chip_seconds.inc(done.chip_seconds, {"device": done.device})
        for stage, seconds in asdict(done.stages).items():
            if seconds:
                self._seconds.inc(seconds, {"stage": stage})
        if fleet.preemptions > self._told:
            self._preemptions.inc(fleet.preemptions - self._told)
            self._told = fleet.preemptions
        self._actors.set(fleet.actors, {"state": "working"})
        self._actors.set(fleet.starting, {"state": "awaited"})
        self._queue.set(fleet.queued)


def kind_of(reason: str) -> str:
    """The part of an error's text that is the same for many inputs: without names and numbers."""
    found = _KIND.match(reason)
    return (found[0] if found else "").strip()[:_KIND_CHARACTERS] or "other"
