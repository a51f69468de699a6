"""Local folders in a `runtime_env` reach a Ray job, by Ray's own package API."""

import asyncio
import uuid
import zipfile
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from ray._private.runtime_env.packaging import create_package

from paliflow.operators import RayJobHook, RayJobTrigger
from paliflow.operators.hook import PACKAGE_BYTES, RayJobError
from paliflow.operators.packages import _py_module, _working_dir, paliflow_package, with_uploads


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "work/data.txt": "data",
        "work/skipped.log": "",
        "work/big/x.bin": "",
        "work/kept/.gitignore": "*.tmp\n",
        "work/kept/a.tmp": "",
        "work/kept/b.txt": "",
        "work/.rayignore": "*.log\n",
        "work/.git/config": "secret",
        "work/venv/lib.py": "",
        "module_a/__init__.py": "WHAT = 'a'",
        "module_a/inner/deep.py": "",
        "module_b.py": "WHAT = 'b'",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "work" / "empty").mkdir()
    (tmp_path / "work" / "run.sh").write_text("#!/bin/sh")
    (tmp_path / "work" / "run.sh").chmod(0o755)
    return tmp_path


def test_local_folders_of_a_runtime_env_are_uploaded_to_the_cluster(
    ray: str, project: Path
) -> None:
    runtime_env: dict[str, Any] = {
        "working_dir": str(project / "work"),
        "py_modules": [str(project / "module_a"), project / "module_b.py"],
        "excludes": ["big"],
    }
    code = (
        "import module_a, module_b; print(module_a.WHAT + module_b.WHAT + open('data.txt').read())"
    )

    async def submit() -> None:
        async with RayJobHook(ray) as hook:
            first = await with_uploads(hook, runtime_env)
            assert await with_uploads(hook, first) == first  # URIs stay
            assert await with_uploads(hook, runtime_env) == first
            await hook.submit(job, f'python -c "{code}"', runtime_env=first, metadata={})

    job = f"test-{uuid.uuid4()}"
    asyncio.run(submit())
    trigger = RayJobTrigger(ray_conn_id=ray, submission_id=job, poll_interval=0.2)
    ended = asyncio.run(trigger.follow())
    assert ended["status"] == "SUCCEEDED", ended
    assert "abdata" in ended["tail"]


def test_paliflow_itself_is_imported_from_the_package_that_is_shipped(ray: str) -> None:
    code = (
        "import paliflow.jobs, paliflow.model; from importlib.metadata import distribution as d; "
        "print(paliflow.jobs.__file__, d('paliflow').locate_file(''), paliflow.__version__)"
    )

    async def submit() -> None:
        async with RayJobHook(ray) as hook:
            package = await hook.upload(*paliflow_package())
            runtime_env = {"py_modules": [package]}
            # Python looks first into the folder that it is started in: here, the repository.
            command = f'cd / && python -c "{code}"'
            await hook.submit(job, command, runtime_env=runtime_env, metadata={})

    job = f"test-{uuid.uuid4()}"
    asyncio.run(submit())
    trigger = RayJobTrigger(ray_conn_id=ray, submission_id=job, poll_interval=0.2)
    ended = asyncio.run(trigger.follow())
    assert ended["status"] == "SUCCEEDED", ended
    module, metadata, said = ended["tail"][-1].split()
    assert "/py_modules_files/" in module
    assert "/py_modules_files/" in metadata
    assert said == version("paliflow")


def test_a_package_that_ray_would_refuse_is_refused_with_the_remedy(ray: str) -> None:
    async def upload() -> None:
        async with RayJobHook(ray) as hook:
            await hook.upload("_ray_pkg_large.zip", bytes(PACKAGE_BYTES + 1))

    with pytest.raises(RayJobError, match="has 100 MiB, and Ray takes 100 MiB; leave data out"):
        asyncio.run(upload())


def test_a_package_holds_the_files_that_rays_own_client_would_send(
    project: Path, tmp_path: Path
) -> None:
    excludes = ["big"]
    default = [".git", ".venv", "venv", "__pycache__"]
    for path, ours, parent in (
        (project / "work", _working_dir(project / "work", excludes), False),
        (project / "module_a", _py_module(project / "module_a", excludes), True),
    ):
        target = tmp_path / f"{path.name}.zip"
        create_package(
            str(path), target, include_gitignore=True, include_parent_dir=parent,
            excludes=excludes if parent else [*default, *excludes],
        )  # fmt: skip
        with zipfile.ZipFile(target) as theirs, zipfile.ZipFile(BytesIO(ours[1])) as own:
            assert sorted(own.namelist()) == sorted(theirs.namelist())
            for info in theirs.infolist():
                assert own.read(info.filename) == theirs.read(info)
                assert own.getinfo(info.filename).external_attr == info.external_attr


def test_the_same_folder_is_the_same_package_and_another_is_not(project: Path) -> None:
    name, content = _working_dir(project / "work", [])
    (project / "work" / "data.txt").touch()
    assert _working_dir(project / "work", []) == (name, content)
    (project / "work" / "data.txt").write_text("other")
    assert _working_dir(project / "work", [])[0] != name
    (project / "work.zip").write_bytes(content)
    assert _working_dir(project / "work.zip", []) == (name, content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: _working_dir(path / "nowhere", []), "working_dir='.*/nowhere': .*a .zip"),
        (lambda path: _working_dir(path / "module_b.py", []), "working_dir=.*module_b.py"),
        (lambda path: _py_module(path / "nowhere", []), "py_modules=.*a folder, a .py file"),
    ],
)
def test_a_local_path_that_is_no_package_is_an_error_that_says_what_is(
    make: Any, message: str, project: Path
) -> None:
    with pytest.raises(AirflowFailException, match=message):
        make(project)
