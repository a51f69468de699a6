"""What a run will take: counted as the run would, reckoned as one would by hand, and printed."""

import json
import math
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.chips import catalogue
from paliflow.configs.reading import reading_costs
from paliflow.jobs.annotate.forecast import Load, forecast, load, outlook
from paliflow.jobs.cli.main import main
from paliflow.jobs.runs.plan import Item
from paliflow.model import BUNDLED_CHECKPOINT, Tokenizer
from paliflow.model.aot import Program
from paliflow.model.batch_size import shape_of
from paliflow.model.cost import Shape
from paliflow.tests.jobs.files import write_mixed
from paliflow.tests.jobs.outputs import finish

PUBLISHED = "paligemma-3b-224"


def make_spec(**fields: Any) -> AnnotateSpec:
    defaults = {"input": "no-such-folder", "output": "out", "run_id": "x", "prompts": "caption en"}
    return AnnotateSpec.parse(defaults | fields)


def published(
    images: int = 1_000_000, model: str = PUBLISHED, megapixels: float | None = None, **fields: Any
) -> Load:
    return load(make_spec(**fields), images, model, megapixels=megapixels)


def test_inputs_are_counted_and_prompts_tokenized_as_the_run_would(tmp_path: Path) -> None:
    write_mixed(tmp_path / "images", 10)
    prompts = ["caption en", "detect digit ; digit ; digit ; digit"]
    found = load(make_spec(input=str(tmp_path / "images"), prompts=prompts))
    assert (found.inputs, found.rows) == (10, 20)
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    longest = max(len(tokenizer.encode_prompt(prompt, 512)) for prompt in prompts)
    assert longest <= found.prompt_tokens < longest + 8
    assert found.prompt_tokens % 8 == 0
    assert found.config.image_size == 56


def test_a_manifest_says_how_many_prompts_there_are_and_how_long(tmp_path: Path) -> None:
    lines = [{"image": "a.png", "q": "what?"}, {"image": "b.png", "q": "what is this? " * 10}]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    spec = make_spec(input=str(manifest), prompts=["ocr"], prompt_column="q")
    found = load(spec)
    assert (found.inputs, found.rows) == (2, 4)
    assert found.prompt_tokens > load(make_spec(), 2).prompt_tokens
    # Unread, it may ask anything.
    assert load(spec, 5).rows == 10
    assert load(spec, 5).prompt_tokens == spec.max_prompt_tokens
    assert published(5, prompts="answer en {q}").prompt_tokens == spec.max_prompt_tokens


def test_a_named_model_needs_neither_inputs_nor_a_checkpoint() -> None:
    found = published(7, checkpoint="gs://nowhere/model.npz", input="gs://nowhere/photos")
    assert (found.inputs, found.rows, found.model) == (7, 7, PUBLISHED)
    # Without a tokenizer: a token for each byte, a beginning and an end, padded.
    assert found.prompt_tokens == 16
    assert "at most" in found.sources[0]
    assert published(7, prompts="x" * 600).prompt_tokens == 512


def test_clips_have_frames_and_are_counted_by_the_user() -> None:
    video = {"fps": 1, "clip": {"frames": 8}}
    with pytest.raises(SpecError, match=r"video=.*say how many with --images"):
        load(make_spec(video=video))
    clips, frames = published(10, video=video), published(10, video={"fps": 1})
    assert (clips.unit, shape_of(clips.spec, 8).frames) == ("clips", 8)
    assert (frames.unit, shape_of(frames.spec, 8).frames) == ("frames", 1)
    chip = catalogue().named("H200")
    assert outlook(clips, chip).cost > 6 * outlook(frames, chip).cost


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({}, {"model": "paligemma-4b"}, "no such model; there are paligemma-3b-224, "),
        ({}, {"inputs": 0}, "--images 0: give at least 1"),
        ({}, {"inputs": 1, "new_tokens": 65}, "--new-tokens 65: give 1 to max_new_tokens=64"),
        ({}, {"inputs": 1, "new_tokens": 0}, "--new-tokens 0: give 1"),
        ({}, {"inputs": 1, "megapixels": 0}, "--megapixels 0: give more than 0"),
        ({}, {"inputs": 1, "megapixels": 101}, "and no more than max_pixels=100000000"),
        ({}, {}, "input="),
        ({"checkpoint": "gs://b/x.npz"}, {"inputs": 1}, "say what it is with --model, one of pali"),
        ({"checkpoint": "no-such.npz"}, {"inputs": 1}, "no such file or folder"),
        ({"checkpoint": __file__}, {"inputs": 1}, "not a readable .npz file"),
        ({"tokenizer": __file__}, {"inputs": 1}, "tokenizer="),
    ],
)
def test_what_cannot_be_reckoned_is_said(
    fields: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(make_spec(**fields), **arguments)
    assert message in str(caught.value)


def test_cost_is_what_one_would_reckon_by_hand() -> None:
    found = published(prompts=["caption en", "ocr"], batch_size=64, max_new_tokens=33)
    each = outlook(found, catalogue().named("v5e"))
    assert (each.batch, each.chips, each.model_parallel) == (64, 1, 1)
    # TFLOP an image: 0.22 of vision, and for each prompt of 272 tokens 1.98 billion parameters
    # but for the last of 18 layers, with a little attention.
    prefill = 2 * 1.98e9 * 17 / 18 * 272 + 4 * 17 * 2048 * 272**2
    computing = 64 * (0.22e12 + 2 * prefill) / (197e12 * 0.5)
    # A step of decoding reads 2.51 billion parameters and 304 positions of each row.
    step = (2 * 2.51e9 + 64 * 304 * 18_432) / (819e9 * 0.6)
    seconds = computing + 2 * 32 * step
    assert each.images_per_second == pytest.approx(64 / seconds, rel=0.01)
    assert each.hours == pytest.approx(1e6 / 64 * seconds / 3600, rel=0.01)
    assert each.cost == pytest.approx(1.2 * each.hours)


def test_cost_grows_with_images_and_answers_and_not_with_actors() -> None:
    chip = catalogue().named("v6e")
    found = published()
    base = outlook(found, chip)
    assert outlook(replace(found, inputs=2_000_000, rows=2_000_000), chip).cost == pytest.approx(
        2 * base.cost
    )
    assert outlook(replace(found, new_tokens=8), chip).cost < base.cost
    four = outlook(published(actors=4), chip)
    assert (four.hours, four.cost) == pytest.approx((base.hours / 4, base.cost))
    small = outlook(published(batch_size=4), chip)
    assert (small.batch, small.largest) == (4, base.batch)
    assert small.cost > base.cost


def test_an_actor_of_several_chips_has_as_many_copies() -> None:
    one = outlook(published(batch_size=32), catalogue().named("v5e"))
    four = outlook(
        published(batch_size=128, accelerators_per_actor={"TPU": 4}), catalogue().named("v5e")
    )
    assert (four.chips, four.model_parallel) == (4, 1)
    assert four.memory == one.memory
    assert four.cost == pytest.approx(one.cost)
    assert four.images_per_second == pytest.approx(4 * one.images_per_second)
    slice_: dict[str, Any] = {"placement": "slice", "accelerator_type": "v5e", "topology": "4x4"}
    spread = outlook(published(**slice_, model_parallel=8), catalogue().named("v5e"))
    assert (spread.chips, spread.model_parallel) == (16, 8)  # of all hosts


def test_a_model_that_fits_on_no_chip_is_spread_over_several() -> None:
    chips = {chip.name: chip for chip in catalogue().chips}
    large = published(model="paligemma2-28b-448")
    assert outlook(large, chips["v5p"]).model_parallel == 1
    spread = outlook(large, chips["v5e"])
    assert spread.model_parallel == 8
    assert spread.chips == 8
    assert spread.memory.total < 15.75 * 2**30
    forced = outlook(published(model="paligemma2-28b-448", model_parallel=2), chips["v5e"])
    assert (forced.model_parallel, forced.largest) == (2, 0)
    assert forced.memory.parameters > 15.75 * 2**30
    rows = forecast(
        published(model="paligemma2-28b-448", model_parallel=2), [chips["v5e"], chips["H200"]]
    )
    assert [row.chip.name for row in rows] == ["H200", "v5e"]  # what cannot be comes last


def test_the_cheapest_comes_first() -> None:
    costs = [row.cost for row in forecast(published(), catalogue().chips)]
    assert costs == sorted(costs)
    assert len(costs) == len(catalogue().chips)


def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str, **fields: Any) -> int:
    """The exit code of `paliflow plan`, run in this process."""
    defaults = {"input": "photos", "output": "out", "run_id": "x", "prompts": ["caption en"]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(defaults | fields))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["paliflow", "plan", str(tmp_path / "spec.yaml"), *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


NAMED = ("--images", "1000000", "--model", PUBLISHED)


def test_a_table_is_printed_with_what_it_assumes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, tmp_path, *NAMED, "--chip", "v5e", "--price", "V5E=0.6") == 0
    said = capsys.readouterr().out
    assert "1,000,000 images, 1,000,000 answers" in said
    assert "2,923,335,408 parameters" in said
    (line,) = re.findall("^v5e .*", said, re.MULTILINE)
    assert "of 15.75" in line
    figures = outlook(published(), catalogue().priced({"v5e": 0.6}).named("v5e"))
    assert line.split()[-2:] == ["0.60", f"{figures.cost:.2f}"]
    assert "50% of peak computing and 60% of peak bandwidth (assumed, nobody has measured" in said
    assert "of v5e: --price" in said
    assert "H100" not in said


def test_cores_for_reading_are_named_and_where_the_host_is_the_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = (*NAMED, "--chip", "v6e", "--megapixels", "12")
    assert plan(monkeypatch, tmp_path, *photographs, decode="exact") == 0
    said = " ".join(capsys.readouterr().out.split())
    found = published(decode="exact", megapixels=12)
    assert found.read_ms == reading_costs().milliseconds("exact", 224, 12)
    each = outlook(found, catalogue().named("v6e"))
    assert found.read_ms
    assert each.cores
    assert each.cores == pytest.approx(each.images_per_second * found.read_ms / 1000)
    assert f"{each.cores:.1f} " in said
    assert f"with decode=exact as fast as the chips ask: {found.read_ms:.1f} ms each" in said
    assert "Of v6e the host is the limit, not the chip, where an actor has cpus_per_actor=1" in said
    assert "Give it the cores of its line, or decode=fast." in said
    cores = str(math.ceil(each.cores))
    assert plan(monkeypatch, tmp_path, *photographs, decode="exact", cpus_per_actor=cores) == 0
    assert "is the limit" not in capsys.readouterr().out
    films = published(video={"fps": 1})
    assert films.read_ms is outlook(films, catalogue().named("v6e")).cores is None
    # Four actors read as much as four times the one.
    four = outlook(published(decode="exact", megapixels=12, actors=4), catalogue().named("v6e"))
    assert four.cores == pytest.approx(each.cores)


def test_options_are_reckoned_with_like_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, tmp_path, *NAMED, "--set", "batch_size=8") == 0
    by_file = capsys.readouterr().out
    words = ["plan", "photos", "--output", "out", "--prompt", "caption en", "--batch-size", "8"]
    monkeypatch.setattr(sys, "argv", ["paliflow", *words, *NAMED])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code in (None, 0)
    assert capsys.readouterr().out == by_file


def test_plan_goes_by_the_newest_finished_run_of_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    spec = make_spec(output=str(folder))
    finish(spec, [Item("a.jpg")], chip_seconds={"TPU v5 lite": 0.072})
    assert plan(monkeypatch, tmp_path, *NAMED, "--like", str(folder)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "whose 1 inputs took 0.072 chip-seconds each: 20 chip-hours of TPU v5 lite" in said


def test_what_the_spec_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("--images", "9", "--model", "paligemma2-28b-448", "--efficiency", "compute=0.4")
    assert plan(monkeypatch, tmp_path, *named, batch_size=512) == 0
    said = capsys.readouterr().out
    assert "v5e: the spec needs model_parallel=8, and 8 chips an actor." in said
    assert "v5e: batch_size=512 is more than fits" in said
    assert "40% of peak computing and 60% of peak bandwidth (--efficiency)" in said


@pytest.mark.parametrize(
    ("arguments", "fields", "message"),
    [
        (("--chip", "v9"), {}, "no chip 'v9' is known; there are v5e, v5p"),
        (("--price", "v5e"), {}, "--price 'v5e': give name=value"),
        (("--price", "v5e=x"), {}, "--price 'v5e=x': 'x' is no number"),
        (("--compile", "v9:2x4"), {}, "no chip 'v9' is known"),
        (("--compile", "v5e:huge"), {}, "--compile 'v5e:huge': give a chip and the sides"),
        ((), {"batch_sizes": 3}, "batch_sizes: unknown field, did you mean batch_size?"),
        (("--set", "dtype=int4"), {}, "dtype='int4'"),
    ],
)
def test_mistakes_are_named_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    fields: dict[str, Any],
    message: str,
) -> None:
    assert plan(monkeypatch, tmp_path, *NAMED, *arguments, **fields) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("temporaries", "code"), [(1.0, 0), (12.0, 1)])
def test_what_the_compiler_says_does_not_fit_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    temporaries: float,
    code: int,
) -> None:
    asked: dict[str, Any] = {}

    def compile_inference(config: Any, shape: Shape, topology: str, batch: int) -> list[Program]:
        asked.update(asdict(shape), topology=topology, batch=batch)
        gib = 2**30
        return [Program("prefill", 5 * gib, int(temporaries * gib), 0, 1.0, 1.0, 0, 18.0)]

    monkeypatch.setattr("paliflow.model.aot.compile_inference", compile_inference)
    arguments = (*NAMED, "--chip", "v5e", "--compile", "v5e:2x4")
    assert plan(monkeypatch, tmp_path, *arguments, dtype="int8", int8_cache=True) == code
    assert asked["topology"] == "v5e:2x4"
    assert (asked["dtype"], asked["int8_cache"], asked["model_parallel"]) == ("int8", True, 1)
    assert asked["batch"] % 8 == 0
    assert f"{(5 + temporaries) / 15.75:.0%}" in capsys.readouterr().out
