"""Fine-tuning through Ray Train: whoever is killed, the losses are those of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from rich.console import Console

from paliflow.configs import FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.configs.summary import SPEC_VARIABLE, SUMMARY_PREFIX
from paliflow.jobs.finetune.export import model_uri
from paliflow.jobs.finetune.job import finetune
from paliflow.jobs.finetune.log import read_log
from paliflow.jobs.registry.cards import trained_decode
from paliflow.model import checkpoint_sha256
from paliflow.tests.jobs.labelled import finetune_spec, train_here
from paliflow.tests.waiting import until

_CONSOLE = Console(force_terminal=False)


def drive(spec: FineTuneSpec, address: str, **environment: str) -> subprocess.Popen[str]:
    """A driver of its own, as Airflow starts it."""
    own = {SPEC_VARIABLE: spec.model_dump_json(), "RAY_ADDRESS": address, **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "paliflow.jobs", "finetune"],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def steps_done(spec: FineTuneSpec) -> int:
    return max((line["step"] for line in read_log(spec.location)), default=0)


def losses(spec: FineTuneSpec) -> list[tuple[float, ...]]:
    names = "step", "loss", "grad_norm", "learning_rate", "held_out/loss", "held_out/anls"
    return [tuple(line.get(name, -1) for name in names) for line in read_log(spec.location)]


def workers() -> list[psutil.Process]:
    """The processes of Ray Train's workers that belong to this process's cluster."""
    own = {each.pid for each in psutil.Process().children(recursive=True)}
    return [
        each
        for each in psutil.process_iter(["cmdline"])
        if "RayTrainWorker" in " ".join(each.info["cmdline"] or ()) and each.pid in own
    ]


@pytest.mark.slow
def test_a_killed_driver_is_resumed_as_if_nothing_had_happened(
    cluster: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = finetune_spec(folder, run_id="killed")
    driver = drive(spec, cluster)
    until(lambda: steps_done(spec) >= 5 or driver.poll() is not None, 120)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert not Path(spec.location, "_manifest.json").exists()
    summary = finetune(spec, _CONSOLE)
    said = capsys.readouterr().out
    assert "24 examples, 12 steps of 4" in said
    assert "step 12 validated: held_out/loss" in said
    assert [line[0] for line in losses(spec)] == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12]
    assert summary.steps == summary.best_step == 12
    assert summary.figures["held_out/loss"] == read_log(spec.location)[-1]["held_out/loss"]
    assert summary.model_sha256 == checkpoint_sha256(Path(summary.model))
    card = Path(summary.model).with_name("README.md").read_text()
    assert summary.checkpoint_sha256 in card
    assert trained_decode(summary.model) == spec.decode == "fast"
    assert Path(summary.model).with_name("tokenizer.model").exists()

    undisturbed = spec.model_copy(update={"run_id": "undisturbed"})
    train_here(undisturbed)
    assert losses(undisturbed) == losses(spec)
    assert checkpoint_sha256(Path(model_uri(undisturbed))) == summary.model_sha256

    assert finetune(spec, _CONSOLE) == summary
    with pytest.raises(SpecError, match="seed was 0, is 1"):
        finetune(spec.model_copy(update={"seed": 1}), _CONSOLE)


@pytest.mark.slow
def test_a_spec_error_of_a_worker_is_not_retried(cluster: str, folder: Path) -> None:
    spec = finetune_spec(folder, run_id="limits", batch_size=1, max_errors=0)
    rows = (folder / "train.jsonl").read_text().replace("train-", "absent-")
    (folder / "absent.jsonl").write_text(rows)
    source = spec.train[0].model_copy(update={"path": str(folder / "absent.jsonl")})
    with pytest.raises(SpecError, match="max_errors=0: 1 of 1 inputs failed: 1 x not found"):
        finetune(spec.model_copy(update={"train": (source,), "validation": {}}), _CONSOLE)


@pytest.mark.slow
def test_two_workers_train_to_the_losses_of_one(cluster: str, folder: Path) -> None:
    one = finetune_spec(folder, run_id="one", dropout=0.0)
    two = finetune_spec(folder, run_id="two", dropout=0.0, workers=2, cpus_per_worker=0.5)
    finetune(one, _CONSOLE)
    finetune(two, _CONSOLE)
    for mine, other in zip(losses(one), losses(two), strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_eight_devices_train_to_the_losses_of_one(cluster: str, folder: Path) -> None:
    one = finetune_spec(folder, run_id="one-of-8", dropout=0.0, batch_size=8)
    eight = one.model_copy(update={"run_id": "eight"})
    finetune(one, _CONSOLE)
    flags = "--xla_force_host_platform_device_count=8"
    driver = drive(eight, "local", XLA_FLAGS=flags)
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, said
    for mine, other in zip(losses(one), losses(eight), strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_losses_stay_the_same(
    cluster: str, folder: Path
) -> None:
    fields = {"duration": {"steps": 30}, "workers": 2, "cpus_per_worker": 0.5}
    spec = finetune_spec(folder, run_id="worker", **fields)
    victim_step = random.Random(0).randrange(4, 25)
    driver = drive(spec, cluster)
    until(lambda: steps_done(spec) >= victim_step or driver.poll() is not None, 120)
    random.Random(0).choice(workers()).kill()
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, said
    assert said.splitlines()[-1].startswith(SUMMARY_PREFIX)
    undisturbed = spec.model_copy(update={"run_id": "worker-undisturbed"})
    finetune(undisturbed, _CONSOLE)
    assert losses(undisturbed) == losses(spec)
