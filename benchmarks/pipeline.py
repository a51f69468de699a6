"""A whole run's speed over that of `generate` alone, with as many processes.

    python -m paliflow.benchmarks.pipeline --images 2000 --actors 2

Both ask the same prompts about the same scenes on the same cores, one after the other. The run
lists, reads, decodes, asks, parses and commits; `generate` alone has its images in memory and
throws its tokens away. Starting, loading and compiling are left out of both: of the run, all
before every actor has committed a part.
"""

import multiprocessing
import os
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console

from paliflow.benchmarks.digits.measure import PROMPTS
from paliflow.benchmarks.digits.scenes import compose
from paliflow.configs import AnnotateSpec
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.annotate.predictor import Predictor
from paliflow.jobs.media.reading import Input, read_input
from paliflow.jobs.runs.parts import read_parts
from paliflow.jobs.runs.plan import Item
from paliflow.model import BUNDLED_CHECKPOINT, Generation, PaliGemma, Tokenizer

BATCH, TOKENS, SHARD = 16, 32, 64
_SECONDS = 20.0


def write_scenes(folder: Path, count: int) -> None:
    """JPEGs of 224 x 224 pixels."""
    rng = np.random.default_rng(0)
    for number in range(count):
        compose(rng, "test", scale=4).image.save(folder / f"{number:06d}.jpg", quality=90)


def generate_alone(images: Path, actors: int, ready: Any, rates: Any) -> None:
    """Puts the images a second of one process that does nothing else into `rates`."""
    os.environ["PJRT_NPROC"] = str(max(1, (os.cpu_count() or 1) // actors))  # as an actor's
    model = PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT)
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    predictor = Predictor(model, tokenizer, None, spec(images, images, 1))
    size, limit = model.config.image_size, 10**6
    inputs = [
        read_input(Item(str(path)), size=size, max_pixels=limit, thumbnail=None, https_hosts=())
        for path in sorted(images.iterdir())
    ]
    batches = [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]

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


def spec(images: Path, output: Path, actors: int) -> AnnotateSpec:
    """The run that is measured."""
    return AnnotateSpec(
        input=str(images),
        output=str(output),
        prompts=PROMPTS,
        run_id="pipeline",
        max_new_tokens=TOKENS,
        batch_size=BATCH,
        shard_size=SHARD,
        actors=actors,
        report=False,
    )


def end_to_end(images: Path, output: Path, actors: int) -> float:
    """Images a second of a run, from when all actors have committed to the end."""
    wanted = spec(images, output, actors)
    summary = annotate(wanted, Console())
    times = sorted(
        (part.committed.timestamp(), part.inputs)
        for part in read_parts(summary.location, range(summary.shards))
    )
    steady = times[2 * actors :]
    return sum(inputs for _, inputs in steady) / (steady[-1][0] - times[2 * actors - 1][0])


def main(images: int = 4000, actors: int = 2) -> None:
    """Prints both rates and their ratio."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "images")
        folder.mkdir()
        write_scenes(folder, images)
        ready, rates = spawn.Barrier(actors), spawn.Queue()
        processes = [
            spawn.Process(target=generate_alone, args=(folder, actors, ready, rates))
            for _ in range(actors)
        ]
        for process in processes:
            process.start()
        alone = sum(rates.get() for _ in processes)
        for process in processes:
            process.join()
        whole = end_to_end(folder, Path(name, "output"), actors)
    print(
        f"{actors} processes: generate alone {alone:.1f} images/s, "
        f"a whole run {whole:.1f} images/s, ratio {whole / alone:.3f}"
    )


if __name__ == "__main__":
    typer.run(main)
