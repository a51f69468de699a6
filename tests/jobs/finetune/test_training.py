"""The parts of a fine-tuning run, without Ray: start, loop, log, checkpoints, export."""

import hashlib
import json
import os
import shutil
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from PIL import Image
from ray.train.v2.api.preemption import PreemptionInfo
from rich.console import Console

from paliflow.configs import FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.examples.plan import sources_of, write_examples
from paliflow.jobs.finetune import worker
from paliflow.jobs.finetune.checkpointing import Checkpoints, Tally
from paliflow.jobs.finetune.export import model_uri
from paliflow.jobs.finetune.job import finetune
from paliflow.jobs.finetune.log import Log, read_log, read_progress
from paliflow.jobs.finetune.progress import described
from paliflow.jobs.finetune.start import begin, steps_of
from paliflow.jobs.finetune.worker import Job, work
from paliflow.jobs.runs.error_limits import ErrorLimitError
from paliflow.jobs.runs.spending import SpendingLimitError
from paliflow.model import BUNDLED_CHECKPOINT, PaliGemma, Tokenizer, preprocess
from paliflow.model.examples import encode_examples
from paliflow.tests.jobs.labelled import finetune_spec, swap_pieces, train_here


def losses(spec: FineTuneSpec) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_log(spec.location) if "loss" in line}


def mean_loss(model: PaliGemma, file: Path) -> float:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    texts = encode_examples(tokenizer, [(row["prefix"], row["suffix"]) for row in rows], 16)
    images = [preprocess(Image.open(file.parent / r["image"]).convert("RGB"), 56) for r in rows]
    logits = model.logits(np.stack(images), texts.text[:, :-1], texts.mask_ar[:, :-1])
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, texts.text[:, 1:])
    weights = texts.mask_loss[:, 1:]
    return float(((nll * weights).sum(1) / weights.sum(1)).mean())


def test_a_run_trains_validates_and_exports_a_model_that_loads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = finetune_spec(
        folder, run_id="whole", best="held_out/loss", keep=1, export_dtype="bfloat16"
    )
    asked, saved, save = count(1), list[int](), Checkpoints.save

    def preemption() -> PreemptionInfo | None:
        nodes = {4: {"a": [0]}, 5: {"a": [0]}, 8: {"b": [1]}}.get(next(asked))
        return PreemptionInfo(None, nodes) if nodes else None

    def noted(self: Checkpoints, step: int, *rest: Any) -> None:
        saved.append(step)
        save(self, step, *rest)

    monkeypatch.setattr(Checkpoints, "save", noted)
    outcome = train_here(spec, preemption)
    assert saved == [3, 4, 6, 8, 9, 12]  # every third, and once for each node that is to go
    assert outcome.preemptions == 2
    assert outcome.chip_seconds["cpu"] > outcome.stages.device
    log = read_log(spec.location)
    looks = {line["step"]: line for line in log if "loss" not in line}
    assert list(losses(spec)) == list(range(1, 13))
    assert list(looks) == [0, 6, 12]
    assert looks[0].keys() == {
        "step", "held_out/loss", "held_out/exact_match", "held_out/anls",
    }  # fmt: skip
    assert looks[12]["held_out/loss"] < looks[0]["held_out/loss"]
    assert min(outcome.stages.device, outcome.stages.read, outcome.stages.commit) > 0
    assert all(0 <= line["read"] < 1 for line in log if "loss" in line)
    assert outcome.best_step == min((6, 12), key=lambda step: looks[step]["held_out/loss"])
    kept = {int(path.name) for path in Path(spec.location, "checkpoints").iterdir()}
    assert kept == {12, outcome.best_step}
    assert list(Path(spec.location, "tensorboard").glob("events*"))
    with np.load(model_uri(spec)) as stored:
        assert {array.dtype.itemsize for array in stored.values()} == {2}
    model = PaliGemma.from_checkpoint(model_uri(spec), dtype="float32")
    assert model.config.image_size == 56
    # What validation sees is what is exported.
    seen = looks[outcome.best_step]["held_out/loss"]
    assert seen == pytest.approx(mean_loss(model, folder / "test.jsonl"), rel=1e-5)


@pytest.mark.slow
def test_lora_in_parts_exports_plain_weights(folder: Path) -> None:
    fields: dict[str, Any] = {"lora": {"rank": 2}, "accumulate": 2, "export": "huggingface"}
    fields |= {"duration": {"steps": 2}, "validation": {}, "dtype": "bfloat16"}
    spec = finetune_spec(folder, run_id="lora", **fields)
    train_here(spec)
    base = PaliGemma.from_checkpoint(begin(spec).checkpoint, image_size=56)
    model = PaliGemma.from_checkpoint(model_uri(spec))
    assert model.config == base.config
    changed = model.params["llm"]["layers_0"]["attn"]["q_einsum"]["w"].weight
    assert np.any(changed != base.params["llm"]["layers_0"]["attn"]["q_einsum"]["w"].weight)
    same = model.params["img"]["head"]["kernel"]
    assert np.array_equal(same, base.params["img"]["head"]["kernel"])


@pytest.mark.slow
def test_an_exported_folder_gives_the_same_logits_in_transformers(folder: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    fields = {"export": "huggingface", "duration": {"steps": 2}, "validation": {}}
    spec = finetune_spec(folder, run_id="transformers", **fields)
    train_here(spec)
    ours = PaliGemma.from_checkpoint(model_uri(spec), dtype="float32")
    theirs = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        model_uri(spec), dtype=torch.float32, attn_implementation="eager"
    )
    tokenizer = Tokenizer.from_file(begin(spec).tokenizer)
    text = np.array([tokenizer.encode_prompt("ocr", 16)] * 2, np.int32)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 56, 56, 3)).astype(np.float32)
    patches, vocabulary = ours.config.vision.num_patches, ours.config.text.vocab_size
    placeholders = np.full((2, patches), vocabulary)
    ids = torch.tensor(np.concatenate([placeholders, text], axis=1))
    with torch.no_grad():
        found = theirs(
            input_ids=ids,
            pixel_values=torch.tensor(images.transpose(0, 3, 1, 2)),
            attention_mask=torch.ones_like(ids),
            token_type_ids=torch.zeros_like(ids),  # all of it a prefix
        ).logits[:, patches:, :vocabulary]
    wanted = np.asarray(ours.logits(images, text, np.zeros_like(text)))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)


@pytest.mark.slow
def test_a_run_in_a_bucket_goes_on_where_it_was(
    gcs: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gcsfs")
    # Orbax writes arrays with TensorStore, which finds the server in its own variables.
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", os.environ["STORAGE_EMULATOR_HOST"])
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    fields: dict[str, Any] = {"output": "gs://images/models", "save_every": {"steps": 6}}
    spec = finetune_spec(folder, **fields)
    real = Checkpoints.save

    def save(self: Checkpoints, step: int, *rest: Any) -> None:
        if step == 12:
            raise KeyboardInterrupt
        real(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            train_here(spec)
    before = losses(spec)
    train_here(spec)
    assert [line["step"] for line in read_log(spec.location) if "loss" in line] == [*range(1, 13)]
    assert losses(spec) == before
    assert PaliGemma.from_checkpoint(model_uri(spec)).config.image_size == 56


@pytest.mark.parametrize(
    ("metric", "best"), [("loss", 2), ("character_error_rate", 2), ("anls", 1)]
)
def test_the_best_checkpoint_is_the_one_whose_figure_is_best(
    tmp_path: Path, metric: str, best: int
) -> None:
    with Checkpoints(str(tmp_path), 1, f"held_out/{metric}") as checkpoints:
        for step, figure in enumerate((0.9, 0.2, 0.5), 1):
            state: Any = {"step": np.int32(step)}
            checkpoints.save(step, state, Tally(1, Counter(), {}), {f"held_out/{metric}": figure})
        assert checkpoints.best_step() == best


def test_a_run_that_has_cost_too_much_stops_at_a_checkpoint_and_goes_on_with_a_higher_limit(
    folder: Path,
) -> None:
    fields: dict[str, Any] = {"run_id": "costly", "duration": {"steps": 2}, "validation": {}}
    fields |= {"save_every": {"steps": 1}, "usd_per_chip_hour": 3600.0}  # a dollar a second
    limited = finetune_spec(folder, max_usd=0.001, **fields)
    for _ in range(2):  # whoever goes on with the same limit is told so before any step
        with pytest.raises(SpendingLimitError, match=r"max_usd=0\.001: 1 steps have cost"):
            train_here(limited)
    assert losses(limited).keys() == {1}
    spec = finetune_spec(folder, max_usd=1000.0, **fields)
    outcome = train_here(spec)
    assert losses(spec).keys() == {1, 2}
    assert outcome.chip_seconds["cpu"] > 0.001


def test_a_loss_that_is_no_number_stops_the_run(folder: Path, tmp_path: Path) -> None:
    weights = dict(np.load(BUNDLED_CHECKPOINT))
    norm = weights["params/llm/final_norm/scale"]
    weights["params/llm/final_norm/scale"] = np.full(norm.shape, np.nan, np.float32)
    np.savez(tmp_path / "broken.npz", **weights)
    tokenizer = str(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    broken = {"checkpoint": str(tmp_path / "broken.npz"), "tokenizer": tokenizer}
    with pytest.raises(SpecError, match=r"step 1: the loss is nan .* Lower learning_rate=0\.0001"):
        train_here(finetune_spec(folder, run_id="nan", validation={}, **broken))


@pytest.mark.slow
def test_bad_images_are_counted_and_stop_the_run_at_its_limit(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    for row in rows[::4]:
        row["image"] = "absent.png"
    (folder / "holes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields: dict[str, Any] = {"train": [{"path": str(folder / "holes.jsonl")}], "validation": {}}
    fields |= {"run_id": "holes", "max_errors": 6}
    spec = finetune_spec(folder, max_error_fraction=1.0, **fields)
    with pytest.raises(ErrorLimitError, match=r"max_errors=6: . of 28 inputs failed: .*not found"):
        train_here(spec)
    outcome = train_here(
        finetune_spec(folder, **{**fields, "max_error_fraction": 1.0, "max_errors": None})
    )
    assert outcome.errors == 12
    assert sum(outcome.reasons.values()) == 12
    assert read_log(spec.location)[-1]["errors"] == 12


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frozen": ["vision/.*"]}, r"frozen='vision/\.\*' matches no parameter"),
        ({"lora": {"matrices": "llm/none"}}, "llm/none"),
        ({"image_size": 57}, "image_size=57 is not a multiple of the patch size"),
        ({"best": "held_out/cider"}, "best='held_out/cider': there are held_out/anls"),
        ({"warmup": {"steps": 12}}, "warmup: 12 steps of 12"),
        ({"checkpoint": "/absent/model.npz"}, "no such file"),
        ({"train": [{"path": "/absent.jsonl"}]}, "absent.jsonl"),
    ],
)  # fmt: skip
def test_what_the_user_has_to_change_is_said_before_any_worker_starts(
    folder: Path, fields: dict[str, Any], message: str
) -> None:
    spec = finetune_spec(folder, **{"run_id": f"bad-{abs(hash(message))}", **fields})
    with pytest.raises(SpecError, match=message):
        finetune(spec, Console())


def test_validation_is_scored_by_texts_alone(folder: Path) -> None:
    held_out = {"path": str(folder / "test.jsonl"), "metrics": ["without_insult"]}
    spec = finetune_spec(folder, run_id="judged", validation={"held_out": held_out})
    with pytest.raises(SpecError, match=r"validation\.held_out\.metrics: without_insult: needs"):
        finetune(spec, Console())


def test_a_run_keeps_its_spec_and_its_weights(folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.npz"
    weights.write_bytes(BUNDLED_CHECKPOINT.read_bytes())
    (tmp_path / "tokenizer.model").write_bytes(
        BUNDLED_CHECKPOINT.with_name("tokenizer.model").read_bytes()
    )
    spec = finetune_spec(folder, output=str(tmp_path), checkpoint=str(weights))
    begin(spec)
    with pytest.raises(SpecError, match=r"learning_rate was 0\.0001, is 0\.1"):
        begin(spec.model_copy(update={"learning_rate": 0.1}))
    assert begin(spec.model_copy(update={"workers": 2})) == begin(spec)
    with weights.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SpecError, match="its sha256 was"):
        begin(spec)


def test_a_worker_trains_from_nothing_but_what_was_looked_at(folder: Path, tmp_path: Path) -> None:
    for name in ("model.npz", "tokenizer.model"):
        shutil.copy(BUNDLED_CHECKPOINT.with_name(name), tmp_path)
    fields = {"output": str(tmp_path), "checkpoint": str(tmp_path / "model.npz")}
    spec = finetune_spec(folder, **fields)
    start, plan = begin(spec), write_examples(spec.location, sources_of(spec), spec)
    swap_pieces(tmp_path / "tokenizer.model")
    with pytest.raises(SpecError, match=r"its digest is .* the file was changed since, or its tok"):
        work(Job(spec, start, plan, steps_of(spec, 24)).packed())
    with pytest.raises(SpecError, match="and their tokenizer back, or start another run"):
        begin(spec)


def test_a_start_of_an_older_version_goes_on(folder: Path, tmp_path: Path) -> None:
    spec = finetune_spec(folder, output=str(tmp_path))
    start = begin(spec)
    alone = hashlib.sha256(BUNDLED_CHECKPOINT.read_bytes()).hexdigest()
    assert start.checkpoint_sha256 != alone
    file = Path(spec.location, "_plan", "start.json")
    file.write_text(file.read_text().replace(start.checkpoint_sha256, alone))
    assert begin(spec).checkpoint_sha256 == alone


def test_a_batch_whose_images_fill_the_memory_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for field in ("batch_size", "max_tokens", "max_new_tokens"):
        with pytest.raises(SpecError, match=f"{field}=1000000000: Input should be less than or"):
            finetune_spec(folder, **{field: 10**9})
    spec = finetune_spec(folder, output=str(tmp_path), batch_size=65_536)
    monkeypatch.setattr(worker, "host_memory", lambda: 2**29)
    with pytest.raises(SpecError, match=r"batch_size=65536: its images take 0\.6 GiB of this host"):
        train_here(spec)


def test_a_decay_that_reaches_nothing_is_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields: dict[str, Any] = {"weight_decay": 0.1, "frozen": ["img/.*"]}
    begin(finetune_spec(folder, run_id="decayless", **fields))
    said = capsys.readouterr().out
    assert "warning: weight_decay=0.1 reaches nothing" in said
    assert "decayed='.*/kernel'" in said
    begin(finetune_spec(folder, run_id="decay", **fields, decayed=r"llm/.*"))
    assert "warning" not in capsys.readouterr().out
    with pytest.raises(SpecError, match=r"decayed='kernel' matches no parameter"):
        begin(finetune_spec(folder, run_id="no-decay", **fields, decayed="kernel"))


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ({"duration": {"epochs": 2}}, (20, 1, 4, 2)),
        ({"duration": {"epochs": 0.21}}, (2, 1, 1, 1)),
        ({"duration": {"epochs": 0.28}}, (3, 1, 1, 1)),
        ({"duration": {"epochs": 0.01}}, (1, 0, 1, 1)),
        ({"duration": {"steps": 1}}, (1, 0, 1, 1)),
        ({"duration": {"steps": 50}, "warmup": {"epochs": 1}}, (50, 10, 10, 5)),
    ],
)
def test_durations_become_steps(
    tmp_path: Path, duration: dict[str, Any], expected: tuple[int, ...]
) -> None:
    every = {"validate_every": {"percent": 20}, "save_every": {"percent": 10}, "batch_size": 10}
    assert steps_of(finetune_spec(tmp_path, **every, **duration), 100) == expected


def test_a_log_is_cut_back_to_where_a_run_goes_on(tmp_path: Path) -> None:
    run = str(tmp_path)
    log = Log(run, 0, 9)
    log.write_figures(0, {"a/loss": 2.0})
    for step in range(1, 6):
        log.write(step, {"loss": 1.0 / step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    log = Log(run, 3, 9)
    log.write(4, {"loss": 0.5})
    log.close()
    assert [line["step"] for line in read_log(run)] == [0, 1, 2, 3, 4]
    assert read_log(run)[-1] == {"step": 4, "loss": 0.5}
    now = read_progress(run)
    assert now is not None
    assert now["validations"] == [{"step": 0, "a/loss": 2.0}]


def test_a_line_says_what_is_known() -> None:
    now = {"step": 5, "total": 20, "loss": 1.25, "errors": 2, "mfu": 0.415, "hbm": 3 * 2**30}
    assert described({**now, "seconds_left": 61.2}) == (
        "step 5/20, loss 1.2500, 42% MFU, 3.0 GiB of HBM, 2 errors, 0:01:01 left"
    )
