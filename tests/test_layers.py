"""The layers of the design: what importing each folder must never bring in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEVER = {
    "configs": {"airflow", "ray", "jax"},
    "storage": {"airflow", "ray", "jax", "paliflow.model", "paliflow.jobs"},
    "model": {"airflow", "ray"},
    "metrics": {"airflow", "ray", "jax", "pyarrow", "pydantic", "paliflow.configs"},
    "operators": {
        "ray",
        "jax",
        "flax",
        "pyarrow",
        "paliflow.model",
        "paliflow.storage",
        "paliflow.jobs",
    },
}


def _modules(folder: str) -> list[str]:
    files = sorted((ROOT / folder).rglob("*.py"))
    names = [".".join(("paliflow", *f.relative_to(ROOT).with_suffix("").parts)) for f in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def _imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("folder", NEVER)
def test_importing_a_folder_never_imports_what_the_design_forbids(folder: str) -> None:
    # configs.schema is the one module of configs that may import pyarrow; it is imported last.
    modules = sorted(_modules(folder), key=lambda name: name.endswith("configs.schema"))
    code = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
    if name != "paliflow.configs.schema" and {folder == "configs"}:
        assert "pyarrow" not in sys.modules, name + " imports pyarrow"
print(sorted(set(sys.modules) & {NEVER[folder]}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"


def test_no_job_imports_airflow() -> None:
    for path in (ROOT / "jobs").rglob("*.py"):
        for name in _imported(path):
            assert name.partition(".")[0] != "airflow", f"{path} imports {name}"


def test_importing_paliflow_is_light() -> None:
    code = """
import sys
import paliflow, paliflow.configs
assert paliflow.configs._MODULES.keys() == set(paliflow.configs.__all__)
print(sorted({name.partition(".")[0] for name in sys.modules}))
print(paliflow.__version__, sorted(set(paliflow.__all__) - set(dir(paliflow))))
print(paliflow.SpecError.__module__)
"""
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    loaded, *others = run.stdout.splitlines()
    heavy = {"airflow", "jax", "numpy", "pandas", "pyarrow", "pydantic", "ray", "rich", "yaml"}
    assert not heavy & set(ast.literal_eval(loaded))
    assert others == [f"{version('paliflow')} []", "paliflow.configs.base"]


def test_a_run_that_is_finished_is_told_of_without_jax_and_ray() -> None:
    code = """
import sys
import paliflow.jobs.annotate.job, paliflow.jobs.extract.job
print(sorted(set(sys.modules) & {"jax", "flax", "ray"}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_decoder_processes_import_no_jax_no_ray_and_no_storage() -> None:
    never = {"jax", "flax", "ray", "google", "fsspec", "pyarrow", "paliflow.storage"}
    code = f"""
import sys
import paliflow.jobs.media.decoder_process as process
process._import_all()
print(sorted(set(sys.modules) & {never}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_dags_import_operators_and_airflows_own_alone() -> None:
    allowed = ("airflow.sdk", "airflow.providers.standard", "paliflow.operators")
    for path in (ROOT / "dags").glob("*.py"):
        for name in _imported(path):
            standard = name.partition(".")[0] in sys.stdlib_module_names
            assert standard or name.startswith(allowed), f"{path.name} imports {name}"


def test_every_module_says_in_one_line_what_it_is() -> None:
    for folder in (*NEVER, "jobs", "dags", "benchmarks", "paliflow", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            with path.open() as file:
                assert file.readline()[:3] in ("", '"""'), f"{path} has no docstring"
