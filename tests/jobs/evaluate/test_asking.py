"""What an evaluation asks is read from where its benchmarks' images lie."""

import zipfile
from pathlib import Path

import pytest

from paliflow.configs import EvaluateSpec
from paliflow.configs.benchmark import benchmark
from paliflow.jobs.evaluate.asking import asking_run, questions
from paliflow.jobs.examples.plan import write_examples
from paliflow.jobs.media import decoder_pool
from paliflow.jobs.media.places import bytes_place, frame_item
from paliflow.jobs.media.reader import reader
from paliflow.jobs.runs.item import Item
from paliflow.tests.jobs.benchmark_files import write_all

SEEN = (32, 32, 3)


def test_pairs_of_images_are_read_out_of_archives_and_of_folders_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path / "data", ["nlvr2", "marvl"])
    sets = {name: {"benchmark": name, "path": str(tmp_path)} for name in ("nlvr2", "marvl")}
    for name in sets:
        folder = tmp_path / "data" / name
        (tmp_path / name).mkdir()
        with zipfile.ZipFile(tmp_path / name / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in filter(Path.is_file, folder.rglob("*")):
                archive.write(file, str(file.relative_to(folder)))
    # Of the first pair the left image lies in a folder, and the right one in the archive.
    whole = tmp_path / "nlvr2" / "all.zip"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "new.zip", "w") as new:
        for entry in old.infolist():
            if entry.filename == "test1/test1-0-0-img0.png":
                old.extract(entry, tmp_path / "nlvr2")
            else:
                new.writestr(entry, old.read(entry))
    (tmp_path / "new.zip").replace(whole)
    pairs = benchmark("nlvr2").sampling
    assert pairs
    run = {"output": str(tmp_path / "out"), "run_id": "a", "checkpoint": "unused"}
    spec = EvaluateSpec.parse({**run, "sets": sets, "video": pairs.model_dump()})
    plan = write_examples(spec.location, spec.sets, spec)
    asked = list(questions(spec.location, plan))
    assert [item.archive is not None for item in asked] == [True] * 9
    read = reader(asking_run(spec, "unused"), 32)
    for processes in (True, False):
        monkeypatch.setattr(decoder_pool, "PROCESSES", processes)
        found = [[made for made in read(item) if made] for item in asked]
        (bad,) = ([made.error for made in own] for own in found if len(own) > 1 or own[0].error)
        assert (bad[1] or "").endswith("test1-1-1-img1.png: not found")
        assert {own[0].pixels.shape for own in found if own[0].pixels is not None} == {(2, *SEEN)}
    assert frame_item(Item("x"), bytes_place("a.zip", 0, 9)).archive is None  # a manifest's
