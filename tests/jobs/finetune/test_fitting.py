"""A device batch is as large as memory allows, and smaller where it did not after all."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.annotate import predictor as predictors
from paliflow.jobs.fleet.stages import Stage
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item
from paliflow.model import BUNDLED_CHECKPOINT, PaliGemma, Tokenizer
from paliflow.model.batch_size import fitting_batch, shape_of
from paliflow.model.cost import memory

OUT_OF_MEMORY = """
import resource
import numpy as np, psutil
from paliflow.configs import AnnotateSpec
from paliflow.jobs.annotate.predictor import Predictor
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.media.reading import Input
from paliflow.model import BUNDLED_CHECKPOINT, PaliGemma, Tokenizer
from paliflow.model.images import resize
from paliflow.benchmarks.digits.measure import held_out_scenes

def asked(batch_size):
    spec = AnnotateSpec(
        input="-", output="-", run_id="x", prompts=("ocr", "detect digit"),
        batch_size=batch_size, max_new_tokens=512,  # a large cache, of which little is filled
    )
    predictor = Predictor(model, tokenizer, None, spec)
    rows = predictor.collect(predictor.ask(inputs * (batch_size // 16), (0, 0)))
    return [[row["text"] for row in own] for own in rows], predictor

model = PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT, dtype="float32")
tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
scenes = [resize(scene.image, 56) for scene in held_out_scenes(16)]
inputs = [Input(Item(str(n)), "", 224, 224, pixels) for n, pixels in enumerate(scenes)]
want, _ = asked(16)
room = psutil.Process().memory_info().vms + 900 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
found, predictor = asked(2048)
assert 16 <= predictor.batch_size < 2048, predictor.batch_size
assert found == want * 128
(name, said), *_ = predictor.notes
assert name == "batch 1024"
assert said == "the device's memory ran out with 2048 rows at a time; now 1024"
"""


@pytest.mark.slow
def test_where_memory_runs_out_half_as_many_rows_are_asked_and_none_is_lost() -> None:
    """Memory that is really gone: the process may have no more of it."""
    run = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY],
        # Of a library of its own, XLA's CPU backend does not say why it failed.
        env={**os.environ, "XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type="},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.fixture(scope="module")
def model() -> PaliGemma:
    return PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT)


def _spec(**fields: Any) -> AnnotateSpec:
    return AnnotateSpec(input="-", output="-", run_id="x", prompts=("ocr",), **fields)


def test_a_cpu_is_given_sixteen_rows_and_whoever_asks_for_more_gets_them(model: PaliGemma) -> None:
    assert fitting_batch(model, _spec(), 8).rows == 16
    assert fitting_batch(model, _spec(batch_size=40), 8).rows == 40


class _Chip:
    """A device that says how much memory it has; the machine's own does not."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": self._limit}


def test_a_chip_is_given_the_largest_batch_that_it_is_reckoned_to_hold(
    model: PaliGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = replace(shape_of(_spec(), 8), backend=model.backend)
    limit = memory(model.config, shape, 64).total / 0.9
    monkeypatch.setattr(jax, "local_devices", lambda: [_Chip(int(limit) + 1)])
    fitting = fitting_batch(model, _spec(), 8)
    assert (fitting.rows, fitting.caches) == (64, 1)
    less = fitting_batch(model, _spec(shard_size=40), 8)
    assert less.rows == 32  # and no more than a shard has
    further = less.memory.cache + less.memory.logits
    assert less.memory.total + further * (less.caches - 1) <= 0.9 * limit
    assert less.memory.total + further * less.caches > 0.9 * limit
    monkeypatch.setattr(jax, "local_devices", lambda: [_Chip(2**10)])
    with pytest.raises(ValueError, match=r"8 tokens takes .* of each chip, which has 0\.0; low"):
        fitting_batch(model, _spec(), 8)


def test_a_batch_that_no_device_holds_is_refused_before_memory_is_asked_for(
    model: PaliGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(batch_size=65_536, max_new_tokens=8192)
    monkeypatch.setattr(jax, "local_devices", lambda: [_Chip(2**33)])
    with pytest.raises(SpecError, match=r"batch_size=65536 with max_new_tokens=8192 .* GiB of"):
        fitting_batch(model, spec, 8)


@pytest.mark.parametrize("field", ["batch_size", "max_new_tokens", "max_prompt_tokens"])
def test_a_thousand_million_of_anything_is_refused_when_a_spec_is_read(field: str) -> None:
    with pytest.raises(SpecError, match=f"{field}=1000000000: Input should be less than or equal"):
        AnnotateSpec.parse({**_spec().model_dump(), field: 10**9})


class _Answers:
    """Of a device batch, which the device has not begun."""

    ready = False

    def is_ready(self) -> bool:
        return self.ready

    def block_until_ready(self) -> None:
        self.ready = True


@pytest.mark.parametrize("caches", [1, 2])
def test_prompts_are_read_as_soon_as_there_is_room_for_their_cache(
    model: PaliGemma, monkeypatch: pytest.MonkeyPatch, caches: int
) -> None:
    fitting = fitting_batch(model, _spec(batch_size=2), 8)
    assert fitting.caches == 8
    monkeypatch.setattr(predictors, "fitting_batch", lambda *_: fitting._replace(caches=caches))
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    told = list[Stage]()
    choice = {"ask": "caption en", "choices": ["1", "2"]}
    spec = AnnotateSpec.parse(_spec(batch_size=2).model_dump() | {"prompts": ["ocr", choice]})
    watch = lambda stage, _: told.append(stage)  # noqa: E731
    predictor = predictors.Predictor(model, tokenizer, None, spec, watch=watch)
    pixels = np.zeros((2, 56, 56, 3), np.uint8)
    inputs = [Input(Item(str(n)), "", 56, 56, each) for n, each in enumerate(pixels)]
    earlier = _Answers()
    predictor._under_way.append(earlier)
    pending = predictor.ask(inputs, (0, 0))  # two device batches: of words, and of choices
    assert earlier.ready
    assert told == ["vision", "prefill", "decode", "prefill"]
    rows = predictor.collect(pending)
    other = spec.model_copy(update={"prompts": spec.prompts[:1]})
    last = predictors.Predictor(model, tokenizer, None, other)
    last._under_way.append(earlier := _Answers())
    assert last.collect(last.ask(inputs, (0, 0))) == [own[:1] for own in rows]
    assert earlier.ready == (caches == 1)
