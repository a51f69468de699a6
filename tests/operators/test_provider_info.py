"""Airflow accepts the provider's metadata and finds what it names."""

import json
from importlib import import_module
from importlib.resources import files

import jsonschema  # type: ignore[import-untyped]
from airflow.providers_manager import ProvidersManager
from airflow.sdk import BaseOperator
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from paliflow import operators
from paliflow.jobs.__main__ import JOBS
from paliflow.operators import AnnotateOperator, RayJobHook
from paliflow.operators.job import JobOperator
from paliflow.operators.provider_info import get_provider_info


def test_the_metadata_fits_airflows_schema() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_module_it_names_exists() -> None:
    info = get_provider_info()
    for kind in ("operators", "hooks", "triggers"):
        for name in info[kind][0]["python-modules"]:
            assert import_module(name).__name__ == name
    links = [type(link) for link in AnnotateOperator.operator_extra_links]
    assert info["extra-links"] == [f"{link.__module__}.{link.__name__}" for link in links]


def test_every_operator_is_exported_and_listed() -> None:
    exported = [getattr(operators, name) for name in operators.__all__]
    modules = {kind.__module__ for kind in exported if issubclass(kind, BaseOperator)}
    assert set(get_provider_info()["operators"][0]["python-modules"]) == modules
    jobs = [kind.JOB for kind in exported if issubclass(kind, JobOperator)]
    assert sorted(jobs) == sorted(JOBS)


def test_airflow_finds_the_hook_by_its_connection_type() -> None:
    hook = ProvidersManagerTaskRuntime().hooks["ray"]
    assert hook
    assert hook.hook_class_name == f"{RayJobHook.__module__}.{RayJobHook.__name__}"
    assert hook.connection_id_attribute_name == "ray_conn_id"


def test_the_connection_form_has_the_fields_of_its_extra() -> None:
    manager = ProvidersManager()
    assert {"extra__ray__headers", "extra__ray__verify"} <= set(manager.connection_form_widgets)
