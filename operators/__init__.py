"""Airflow's side: an operator for each job; `RayJobHook` and `RayJobTrigger` carry it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paliflow.operators.annotate import AnnotateOperator
    from paliflow.operators.calibrate import CalibrateOperator
    from paliflow.operators.evaluate import EvaluateOperator
    from paliflow.operators.extract_frames import ExtractFramesOperator
    from paliflow.operators.filter import FilterOperator
    from paliflow.operators.finetune import FineTuneOperator
    from paliflow.operators.hook import RayJobHook
    from paliflow.operators.promote import PromoteOperator
    from paliflow.operators.ray_cluster import (
        CreateRayClusterOperator,
        DeleteRayClusterOperator,
    )
    from paliflow.operators.rayjob import RayJobCluster
    from paliflow.operators.release import ReleaseOperator
    from paliflow.operators.trigger import RayJobTrigger

__all__ = [
    "AnnotateOperator",
    "CalibrateOperator",
    "CreateRayClusterOperator",
    "DeleteRayClusterOperator",
    "EvaluateOperator",
    "ExtractFramesOperator",
    "FilterOperator",
    "FineTuneOperator",
    "PromoteOperator",
    "RayJobCluster",
    "RayJobHook",
    "RayJobTrigger",
    "ReleaseOperator",
]

_MODULES = {
    "AnnotateOperator": "paliflow.operators.annotate",
    "CalibrateOperator": "paliflow.operators.calibrate",
    "CreateRayClusterOperator": "paliflow.operators.ray_cluster",
    "DeleteRayClusterOperator": "paliflow.operators.ray_cluster",
    "EvaluateOperator": "paliflow.operators.evaluate",
    "ExtractFramesOperator": "paliflow.operators.extract_frames",
    "FilterOperator": "paliflow.operators.filter",
    "FineTuneOperator": "paliflow.operators.finetune",
    "PromoteOperator": "paliflow.operators.promote",
    "RayJobCluster": "paliflow.operators.rayjob",
    "RayJobHook": "paliflow.operators.hook",
    "RayJobTrigger": "paliflow.operators.trigger",
    "ReleaseOperator": "paliflow.operators.release",
}


def __getattr__(name: str) -> Any:
    # Airflow imports this package for its metadata while it is itself half imported, so
    # nothing that imports Airflow may be imported before it is asked for.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
