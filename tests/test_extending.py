"""The worked examples of docs/extending: what they show is done in a copy, and their tests pass."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "extending").glob("*.md"))
_BLOCK = re.compile(r'^```(\w+) title="(.+?)"\n(.*?)^```', re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ \.venv/bin/python (.+)$", re.MULTILINE)


@pytest.mark.slow
def test_every_worked_example_does_what_its_page_says(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__"))
    arguments: list[str] = []
    for page in PAGES:
        text = page.read_text()
        for kind, file, block in _BLOCK.findall(text):
            follow(copy / file, kind, block)
        (command,) = _COMMAND.findall(text)
        module, pytest, *tests = command.split()
        assert (module, pytest) == ("-m", "pytest")
        arguments += tests
    environment = os.environ | {"PYTHONPATH": str(importable(copy)), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(arguments) == len(PAGES) == 6
    lint = [sys.executable, "-m", "ruff", "check", "--quiet", "."]
    for command in (lint, [*lint[:3], "format", "--check", "--quiet", "."]):
        subprocess.run(command, cwd=copy, check=True)


def follow(file: Path, kind: str, block: str) -> None:
    """Does what a block says: a diff replaces what it shows, other text is added at the end."""
    if kind != "diff":
        there = file.read_text() if file.exists() else ""
        between = "\n\n" if there and kind == "python" else ""
        file.write_text(there + between + block)
        return
    lines = block.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    content = file.read_text()
    assert content.count(before) == 1, f"{file} does not have once:\n{before}"
    file.write_text(content.replace(before, after))


def importable(copy: Path) -> Path:
    """The folder for PYTHONPATH in which the copy's folders are the packages of `paliflow`.

    It is the copy itself, which Python looks into first anyway.
    """
    settings = tomllib.loads((copy / "pyproject.toml").read_text())["tool"]["setuptools"]
    for name, folder in settings["package-dir"].items():
        if own := name.partition(".")[2]:
            (copy / "paliflow" / own).symlink_to(copy / folder)
    return copy
