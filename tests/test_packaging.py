"""What is distributed: every package, its types and its licence, but no tests."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pyarrow.dataset as ds
import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PYPROJECT["tool"]["setuptools"]["package-dir"]


def test_pyproject_lists_every_package_that_has_modules() -> None:
    found = {
        ".".join((name, *path.parent.relative_to(ROOT / folder).parts))
        for name, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
        if name != "paliflow.tests" or path.parent == ROOT / folder  # which no wheel has
    }
    assert found == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_each_shipped_folder_says_that_it_is_typed() -> None:
    shipped = [folder for name, folder in FOLDERS.items() if name != "paliflow.tests"]
    assert [name for name in shipped if not (ROOT / name / "py.typed").is_file()] == []


def test_nothing_that_is_shipped_imports_tests() -> None:
    for name, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py") if name != "paliflow.tests" else ():
            assert not re.search(r"^\s*(from|import) paliflow\.tests", path.read_text(), re.M), path


def test_newest_version_of_the_changelog_is_that_of_pyproject() -> None:
    (newest, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == PYPROJECT["project"]["version"]


@pytest.mark.slow
def test_wheel_in_an_empty_environment_annotates_an_image(tmp_path: Path) -> None:
    source, environment = tmp_path / "source", tmp_path / "environment"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if "tests" in name.split("/")]
    assert [name for name in names if name.endswith("/licenses/LICENSE")]

    venv.create(environment)
    python = environment / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # What Paliflow depends on need not be installed twice. Of that folder no .pth is read, so that
    # the editable install that may be there is not seen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    image = ROOT / "dags" / "sample" / "scene_00.jpg"
    subprocess.run(
        [environment / "bin" / "paliflow", "annotate", image, "--output", "out", "--prompt", "ocr"],
        cwd=source,  # whose folder `paliflow` is the first that Python and Ray's workers find
        env=variables,
        check=True,
    )
    (row,) = ds.dataset(source / "out", partitioning="hive").to_table().to_pylist()
    assert row["status"] == "ok"
    assert row["text"]
    where = "import paliflow.jobs, importlib.util as u; print(paliflow.jobs.__file__)"
    code = f"{where}; assert u.find_spec('paliflow.tests') is None"
    said = subprocess.check_output([python, "-c", code], cwd=tmp_path, env=variables, text=True)
    assert Path(said.strip()).is_relative_to(environment)
