"""Runs a DAG in this process, against the test session's own database."""

import functools
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.asset import AssetDagRunQueue, AssetEvent
from airflow.sdk import DAG
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import select


def run(dag: DAG, run_after: datetime | None = None, **conf: Any) -> Any:
    """The finished `DagRun`; `conf` are the values of DAG parameters."""
    make_known(dag)
    return dag.test(run_after=run_after, run_conf=conf)


def make_known(dag: DAG) -> None:
    """Puts a DAG among those that Airflow knows, whatever file it came from."""
    initialize()
    folder = Path(os.environ["AIRFLOW_HOME"], "dags")
    folder.mkdir(exist_ok=True)
    bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


def called_for(dag_id: str) -> bool:
    """Whether events of its assets want a run of this DAG: what the scheduler looks at, once."""
    with create_session() as session:
        mine = AssetDagRunQueue.target_dag_id == dag_id
        found = session.scalars(select(AssetDagRunQueue).where(mine)).all()
        for call in found:
            session.delete(call)
    return bool(found)


def asset_events(dag_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The asset events that a DAG's tasks caused: task, URI and extra, sorted by them."""
    with create_session() as session:
        events = session.scalars(select(AssetEvent).where(AssetEvent.source_dag_id == dag_id))
        found = [
            (str(event.source_task_id), event.asset.uri, dict(event.extra)) for event in events
        ]
    return sorted(found, key=str)


@functools.cache
def initialize() -> None:
    """Makes the test session's database, once."""
    initdb()
    DagBundlesManager().sync_bundles_to_db()
