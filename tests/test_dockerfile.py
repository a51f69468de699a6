"""The image of `deploy/Dockerfile`: what it pins, and that what it installs runs a job."""

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\s*\\\n\s*", " ", DOCKERFILE).splitlines()
    if line and not line.startswith("#")
]


def arguments(name: str) -> list[str]:
    """Of all instructions of a name."""
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def test_image_pins_python_to_the_patch_and_ray_by_the_constraints() -> None:
    (base,) = arguments("FROM")
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-\w+", base)
    pip = [each for each in arguments("RUN") if each.startswith("pip")]
    assert pip == ['pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"']
    assert re.search(r"^ray==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_image_leaves_nothing_behind_that_a_layer_would_keep() -> None:
    assert {name for name, _ in INSTRUCTIONS} <= {"FROM", "RUN", "ARG", "WORKDIR", "COPY", "ENV"}
    for command in arguments("RUN"):
        if "apt-get install" in command:
            assert "--no-install-recommends" in command
            assert command.endswith("rm -rf /var/lib/apt/lists/*")
    # Chips are a worker's: an image that asked for them would break the head.
    assert not [each for each in arguments("ENV") if "JAX_PLATFORMS" in each]


@pytest.mark.slow
def test_what_the_image_installs_runs_a_job(tmp_path: Path) -> None:
    source, environment = tmp_path / "source", tmp_path / "environment"
    left_out = shutil.ignore_patterns(
        *(ROOT / "deploy" / "Dockerfile.dockerignore").read_text().replace("**/", "").split()
    )
    shutil.copytree(ROOT, source, ignore=left_out)
    venv.create(environment, with_pip=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # The compiler of TPUs is half a gigabyte, and no part of what a job on this machine needs.
    clean |= {"PATH": f"{environment / 'bin'}:{clean['PATH']}", "EXTRAS": "ray"}
    for command in arguments("RUN"):
        if command.startswith("pip"):
            subprocess.run(command, shell=True, cwd=source, env=clean, check=True)
    sample = ROOT / "dags" / "sample" / "scene_00.jpg"
    spec = f'{{"input": "{sample}", "output": "{tmp_path}/out", "run_id": "r", "prompts": ["ocr"]}}'
    run = subprocess.run(
        [environment / "bin" / "python", "-m", "paliflow.jobs", "annotate"],
        cwd=tmp_path,
        env=clean | {"PALIFLOW_SPEC": spec, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert '"rows":1' in run.stdout.splitlines()[-1]
