"""The hostile collection as a run's input: it ends, every file has its row, nothing is left."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

from paliflow import storage
from paliflow.configs import ExtractSpec
from paliflow.configs.summary import SPEC_VARIABLE
from paliflow.jobs.media.video.container import VIDEO_SUFFIXES
from paliflow.jobs.sources.items import IMAGE_SUFFIXES
from paliflow.jobs.sources.listing import is_hidden
from paliflow.tests.jobs import fuzz, hostile, zoo
from paliflow.tests.jobs.conftest import SpecFactory, small_spec
from paliflow.tests.jobs.here import annotate_here, extract_here

_MB = 2**20


def fill(folder: Path, images: int, films: int, seed: int = 1) -> None:
    for is_film, count in ((False, images), (True, films)):
        for name, content in fuzz.mutations(count, seed, films=is_film):
            (folder / name).write_bytes(content)


def listed(folder: Path, suffixes: Iterable[str]) -> set[str]:
    """What a run finds there."""
    found = (entry.uri for entry in storage.list_files(str(folder)))
    uris = (uri for uri in found if not is_hidden(uri.removeprefix(f"{folder}/")))
    return {uri for uri in uris if os.path.splitext(uri)[1].lower() in suffixes}  # noqa: PTH122


def rows_of(location: str) -> list[dict[str, Any]]:
    parts = sorted(Path(location).glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_every_mutated_file_has_its_row(make_spec: SpecFactory, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    fill(folder, 10, 6)
    wanted = hostile.images(folder, large=False)
    spec = make_spec(input=str(folder), prompts=["caption en"], decoder_memory=300)
    errors = {row["source_uri"]: row["error"] for row in rows_of(annotate_here(spec).location)}
    assert set(errors) == listed(folder, IMAGE_SUFFIXES)
    for name, error in wanted.items():
        assert (errors[str(folder / name)] or "").startswith(error)
    fields: dict[str, Any] = {"video": {"every_frames": 2}, "max_error_fraction": 1.0}
    films = ExtractSpec.parse(
        fields | {"input": str(folder), "output": str(tmp_path / "frames"), "run_id": "x"}
    )
    rows = rows_of(extract_here(films).location)
    assert {row["source_uri"] for row in rows} == listed(folder, VIDEO_SUFFIXES)


@pytest.mark.slow
@pytest.mark.parametrize("films", [False, True])
def test_the_whole_hostile_collection_costs_rows_and_no_memory(tmp_path: Path, films: bool) -> None:
    folder = tmp_path / "zoo"
    zoo.fill(folder)
    fill(folder, 1500, 500)
    hostile.images(folder)
    hostile.films(folder)
    limits = {"read_timeout": 20, "video_timeout": 40, "decoder_memory": 1500}
    spec = small_spec(
        tmp_path / "output",
        input=str(folder),
        prompts=["caption en"],
        **limits,
        **({"video": {"every_frames": 4}} if films else {}),
    )
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    environment[SPEC_VARIABLE] = spec.model_dump_json()
    command = [sys.executable, "-m", "paliflow.jobs", "annotate"]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        peaks: dict[str, int] = {}
        seen = set()
        while driver.poll() is None:
            for process in [own := psutil.Process(driver.pid), *own.children(recursive=True)]:
                seen.add(process)
                try:
                    size, line = process.memory_info().rss // _MB, " ".join(process.cmdline())
                except psutil.Error:
                    continue
                kind = next((k for k in ("decoder_process", "ray::Annotator") if k in line), None)
                kind = "driver" if process.pid == driver.pid else kind
                if kind:
                    peaks[kind] = max(peaks.get(kind, 0), size)
            time.sleep(0.2)
    assert driver.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    suffixes = VIDEO_SUFFIXES if films else IMAGE_SUFFIXES
    assert {row["source_uri"] for row in rows_of(spec.location)} == listed(folder, suffixes)
    _, alive = psutil.wait_procs(seen, timeout=10)
    assert alive == []
    print(peaks)
    assert peaks["driver"] < 600
    assert peaks["decoder_process"] < limits["decoder_memory"] + 200
    assert peaks["ray::Annotator"] < 1500
