"""Runs parts of `slice_runs`, at the same time, and reads what they print."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from paliflow.tests.jobs.labelled import write_scenes


def outcome(folder: Path, *parts: str) -> tuple[str, dict[str, Any]]:
    """What the parts have printed, and what came of them; adds a training's examples to a folder.

    Raises:
        AssertionError: a part fails.
    """
    write_scenes(folder / "train.jsonl", "train", 24)
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    script = [sys.executable, "-m", "paliflow.tests.jobs.fleet.slice_runs"]
    outputs = [(folder / name).with_suffix(".txt") for name in parts]
    errors = [output.with_suffix(".err") for output in outputs]
    running = [
        subprocess.Popen(
            [*script, part, folder],
            stdout=output.open("w"),
            stderr=error.open("w"),
            env=environment,
        )
        for part, output, error in zip(parts, outputs, errors, strict=True)
    ]
    said, found = list[str](), dict[str, Any]()
    try:
        for process, output, error in zip(running, outputs, errors, strict=True):
            assert process.wait(2400) == 0, output.read_text()[-3000:] + error.read_text()[-6000:]
            *lines, last = output.read_text().splitlines()
            said += lines
            found |= json.loads(last)
    finally:
        for process in running:
            process.kill()
    return "\n".join(said), found
