"""Compiles PaliGemma's training step for TPU slices, on a machine without one: does it fit?

    python -m paliflow.benchmarks.tpu_finetune
    python -m paliflow.benchmarks.tpu_finetune --slice v5e:4x4 --model paligemma2-3b-448

The compiler is the real one, from the package `libtpu` (the extra `tpu-aot`); it says how much
memory each chip needs, and refuses a program that needs more than there is.
"""

import sys
import time
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jax.sharding import Mesh

from paliflow.model.aot import slice_devices
from paliflow.model.config import VARIANTS, PaliGemmaConfig
from paliflow.model.loss import Batch
from paliflow.model.recipe import Recipe
from paliflow.model.sharding import by_rows
from paliflow.model.train import Trainer

_GIB = 2**30
_USABLE = 15.75 * _GIB
"""Of a v5e chip's 16 GiB, what XLA has for a program."""
_RECIPES = {"full": None, "LoRA, rank 16": 16}


def compile_step(
    config: PaliGemmaConfig, recipe: Recipe, topology: str, examples: int, text_length: int
) -> jax.stages.Compiled:
    """The step of `examples` a chip, for all chips of a slice such as `v5e:2x4`."""
    mesh = Mesh(np.array(slice_devices(topology)), ("data",))
    rows = examples * mesh.size

    def row(shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=by_rows(mesh))

    size, text = config.image_size, row((text_length,), jnp.int32)
    batch = Batch(row((size, size, 3), jnp.float32), text, text, text)  # type: ignore[arg-type]
    trainer = Trainer(config, recipe, mesh)
    return trainer.step.lower(*trainer.abstract, batch).compile()


def main(
    topology: Annotated[list[str] | None, typer.Option("--slice", help="Default: both.")] = None,
    model: Annotated[str, typer.Option(help="A published variant.")] = "paligemma-3b-224",
    examples: Annotated[int, typer.Option(help="Of a batch, on each chip.")] = 4,
    text_length: Annotated[int, typer.Option(help="Tokens of prefix and suffix.")] = 128,
) -> None:
    """Prints the memory of each chip; exit code 1 if a step does not fit."""
    print(
        "| slice | trains | examples a step | arguments | temporaries | of 15.75 GiB | compiled |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    fits = True
    for name in topology or ("v5e:2x4", "v5e:4x4"):
        for trains, rank in _RECIPES.items():
            recipe = Recipe(1000, 50, lora_rank=rank, remat=True)
            started = time.monotonic()
            compiled = compile_step(VARIANTS[model], recipe, name, examples, text_length)
            seconds = time.monotonic() - started
            memory: Any = compiled.memory_analysis()
            arguments = memory.argument_size_in_bytes  # the state is given back in place
            temporaries = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
            chips = len(compiled.input_shardings[0][0].step.device_set)
            share = (arguments + temporaries) / _USABLE
            fits = fits and share <= 1
            print(
                f"| {name} | {trains} | {chips * examples} | {arguments / _GIB:.2f} GiB "
                f"| {temporaries / _GIB:.2f} GiB | {share:.0%} | {seconds:.0f} s |",
                flush=True,
            )
    sys.exit(0 if fits else 1)


if __name__ == "__main__":
    typer.run(main)
