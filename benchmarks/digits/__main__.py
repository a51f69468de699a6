"""Makes and measures the bundled checkpoint: `python -m paliflow.benchmarks.digits --help`."""

import json
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import typer
from jax import tree
from rich.console import Console
from rich.table import Table

from paliflow.benchmarks.digits.films import write_film
from paliflow.benchmarks.digits.measure import PROMPTS, held_out_scenes, measure
from paliflow.benchmarks.digits.scenes import answer
from paliflow.benchmarks.digits.training import make_tokenizer, restore_params, train
from paliflow.model import BUNDLED_CHECKPOINT, PaliGemma, Tokenizer
from paliflow.model.npz import write_npz

app = typer.Typer(help=__doc__, no_args_is_help=True)
Work = Annotated[Path, typer.Option(help="Where the tokenizer and the checkpoints go.")]


@app.command(name="train")
def train_command(
    work: Work = Path("digits-training"),
    steps: int = 8_000,
    batch_size: int = 32,
    learning_rate: float = 1.5e-3,
    seed: int = 0,
) -> None:
    """Trains from scratch, or goes on from the newest checkpoint in WORK."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = work / "tokenizer.model"
    if not tokenizer.exists():
        tokenizer.write_bytes(make_tokenizer())
    train(
        work,
        Tokenizer.from_file(tokenizer),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )


@app.command()
def export(work: Work = Path("digits-training"), to: Path = BUNDLED_CHECKPOINT) -> None:
    """Writes the newest checkpoint in WORK as bfloat16 .npz, its tokenizer beside it."""
    model = (work / "tokenizer.model").read_bytes()
    params = restore_params(work / "checkpoints", Tokenizer(model))
    to.parent.mkdir(parents=True, exist_ok=True)
    write_npz(to, tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
    to.with_name("tokenizer.model").write_bytes(model)
    print(f"{to}: {to.stat().st_size / 1e6:.1f} MB")


@app.command(name="measure")
def measure_command(
    checkpoint: Path = BUNDLED_CHECKPOINT, count: int = 1000, dtype: str = "bfloat16"
) -> None:
    """Prints the checkpoint's figures on COUNT scenes of held-out scans."""
    model = PaliGemma.from_checkpoint(checkpoint, dtype=dtype)
    tokenizer = Tokenizer.from_file(checkpoint.with_name("tokenizer.model"))
    table = Table(title=f"{count} scenes of held-out scans")
    table.add_column("task")
    table.add_column("%", justify="right")
    for name, value in measure(model, tokenizer, count).items():
        table.add_row(name, f"{100 * value:.1f}")
    Console().print(table)


@app.command()
def films(to: Path, count: int = 4) -> None:
    """Writes films of moving digits and what is to be read in them into TO; one is cut off."""
    to.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number in range(count):
        path = to / f"film_{number}.mp4"
        truth[path.name] = write_film(path, np.random.default_rng(number), "test", 5, 50)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 7 // 10])
    (to / "ground_truth.json").write_text(json.dumps(truth, indent=1) + "\n")


@app.command()
def sample(to: Path, count: int = 32) -> None:
    """Writes COUNT test scenes as JPEG and PNG, broken files, and `ground_truth.json`."""
    to.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number, scene in enumerate(held_out_scenes(count, seed=7)):
        name = f"scene_{number:02d}.{'png' if number % 4 == 3 else 'jpg'}"
        scene.image.save(to / name, quality=90)
        truth[name] = {prompt: answer(scene, prompt) for prompt in PROMPTS}
    whole = (to / "scene_00.jpg").read_bytes()
    (to / "broken_truncated.jpg").write_bytes(whole[: len(whole) // 3])
    (to / "broken_empty.jpg").write_bytes(b"")
    (to / "broken_text.png").write_text("This is not an image.\n")
    (to / "broken_bomb.png").write_bytes(_png_header(60_000, 60_000))
    (to / "ground_truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def _png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixels."""
    from struct import pack
    from zlib import crc32

    header = b"IHDR" + pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = [pack(">I", len(c) - 4) + c + pack(">I", crc32(c)) for c in (header, end)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


if __name__ == "__main__":
    app()
