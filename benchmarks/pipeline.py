"""A whole run's speed over that of `generate` alone, with as many processes.

    python -m paliflow.benchmarks.pipeline --images 2000 --actors 2
    python -m paliflow.benchmarks.pipeline --model paligemma-3b-224 --images 64 --actors 1

Both ask the same prompts about the same scenes on the same cores, one after the other. The run
lists, reads, decodes, asks, parses and commits; `generate` alone has its images in memory and
throws its tokens away. Starting, loading and compiling are left out of both: of the run, all
before every actor has committed a part. `around the device` is the share of the actors' time, from
when they had loaded, in which no batch was on the device.

With `--model` it is a published architecture with random weights and the bundled tokenizer, asked
one prompt in batches of 4: 12 GB of memory and 5 of disk for 3B.
"""

import multiprocessing
import os
import shutil
import tempfile
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from rich.console import Console

from paliflow.benchmarks.digits.measure import PROMPTS
from paliflow.benchmarks.digits.scenes import compose
from paliflow.benchmarks.vs_transformers import write_weights
from paliflow.configs import AnnotateSpec
from paliflow.configs.summary import StageSeconds
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.annotate.predictor import Predictor
from paliflow.jobs.media.reading import Input, read_input
from paliflow.jobs.registry.locations import checkpoint_of, tokenizer_of
from paliflow.jobs.runs.parts import read_parts
from paliflow.jobs.runs.plan import Item
from paliflow.model import BUNDLED_CHECKPOINT, VARIANTS, Generation, PaliGemma, Tokenizer

BATCH, TOKENS, SHARD = 16, 32, 64
LARGE: dict[str, Any] = {"prompts": PROMPTS[:1], "batch_size": 4, "shard_size": 8}
_SECONDS = 20.0


def write_scenes(folder: Path, count: int) -> None:
    """JPEGs of 224 x 224 pixels."""
    rng = np.random.default_rng(0)
    for number in range(count):
        compose(rng, "test", scale=4).image.save(folder / f"{number:06d}.jpg", quality=90)


def write_random(folder: Path, name: str) -> Path:
    """Random weights of an architecture, with the bundled tokenizer's vocabulary."""
    tokenizer = BUNDLED_CHECKPOINT.with_name("tokenizer.model")
    config = VARIANTS[name]
    vocabulary = Tokenizer.from_file(tokenizer).vocab_size
    config = replace(config, text=replace(config.text, vocab_size=vocabulary))
    folder.mkdir()
    write_weights(folder, config)
    shutil.copy(tokenizer, folder)
    return folder


def generate_alone(images: Path, wanted: AnnotateSpec, ready: Any, rates: Any) -> None:
    """Puts the images a second of one process that does nothing else into `rates`."""
    os.environ["PJRT_NPROC"] = str(
        max(1, (os.cpu_count() or 1) // (wanted.actors or 1))
    )  # as an actor's
    jax.config.update("jax_compilation_cache_dir", wanted.compilation_cache)
    checkpoint = checkpoint_of(wanted)
    model = PaliGemma.from_checkpoint(checkpoint)
    tokenizer = Tokenizer.from_file(tokenizer_of(wanted.tokenizer, checkpoint))
    predictor = Predictor(model, tokenizer, None, wanted)
    size, limit = model.config.image_size, 10**6
    inputs = [
        read_input(Item(str(path)), size=size, max_pixels=limit, thumbnail=None, https_hosts=())
        for path in sorted(images.iterdir())
    ]
    step = predictor.batch_size
    batches = [inputs[start : start + step] for start in range(0, len(inputs), step)]

    def generate(batch: list[Input]) -> None:
        for device_batch in predictor.ask(batch, (0, 0)).device_batches:
            assert isinstance(device_batch.answers, Generation)
            device_batch.answers.tokens.block_until_ready()

    generate(batches[0])
    ready.wait()
    started, done = time.perf_counter(), 0
    for batch in cycle(batches):
        generate(batch)
        done += len(batch)
        if time.perf_counter() - started > _SECONDS:
            break
    rates.put(done / (time.perf_counter() - started))


def spec(folder: Path, actors: int, checkpoint: Path | None) -> AnnotateSpec:
    """The run that is measured."""
    fields: dict[str, Any] = {"prompts": PROMPTS, "batch_size": BATCH, "shard_size": SHARD}
    if checkpoint:
        fields |= LARGE | {"checkpoint": str(checkpoint)}
    return AnnotateSpec(
        input=str(folder / "images"),
        output=str(folder / "output"),
        run_id="pipeline",
        max_new_tokens=TOKENS,
        actors=actors,
        report=False,
        compilation_cache=str(folder / "programs"),
        **fields,
    )


def end_to_end(wanted: AnnotateSpec) -> tuple[float, StageSeconds]:
    """Images a second of a run, from when all actors have committed to the end; and its stages."""
    actors = wanted.actors or 1
    summary = annotate(wanted, Console())
    times = sorted(
        (part.committed.timestamp(), part.inputs)
        for part in read_parts(summary.location, range(summary.shards))
    )
    steady = times[2 * actors :]
    rate = sum(inputs for _, inputs in steady) / (steady[-1][0] - times[2 * actors - 1][0])
    return rate, summary.stages


def main(
    images: int = 4000,
    actors: int = 2,
    model: Annotated[str, typer.Option(help="A published variant; the bundled if empty.")] = "",
) -> None:
    """Prints both rates and their ratio, and what is lost around the device."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        (folder / "programs").mkdir(mode=0o700)
        write_scenes(folder / "images", images)
        checkpoint = write_random(folder / "weights", model) if model else None
        wanted = spec(folder, actors, checkpoint)
        ready, rates = spawn.Barrier(actors), spawn.Queue()
        processes = [
            spawn.Process(target=generate_alone, args=(folder / "images", wanted, ready, rates))
            for _ in range(actors)
        ]
        for process in processes:
            process.start()
        alone = sum(rates.get() for _ in processes)
        for process in processes:
            process.join()
        whole, stages = end_to_end(wanted)
    print(
        f"{actors} processes: generate alone {alone:.3g} images/s, "
        f"a whole run {whole:.3g} images/s, ratio {whole / alone:.3f}; "
        f"{1 - stages.share(stages.on_device):.1%} around the device ({stages.said()})"
    )


if __name__ == "__main__":
    typer.run(main)
