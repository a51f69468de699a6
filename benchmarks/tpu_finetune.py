"""Compiles PaliGemma's training step for TPU slices, on a machine without one: does it fit?

    make tpu-check
    python -m paliflow.benchmarks.tpu_finetune --slice v5e:4x4 --model paligemma2-3b-448

The compiler is the real one, from the package `libtpu` (the extra `tpu-aot`); it says how much
memory each chip needs, and refuses a program that needs more than there is.
"""

import sys
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jax.errors import JaxRuntimeError
from jax.sharding import Mesh

from paliflow.benchmarks.tpu_check import chips_of
from paliflow.configs.chips import catalogue
from paliflow.model.aot import Program, compiled, slice_devices
from paliflow.model.config import VARIANTS
from paliflow.model.loss import Batch
from paliflow.model.recipe import Recipe
from paliflow.model.sharding import by_rows
from paliflow.model.train import Trainer

_GIB = 2**30


class Case(NamedTuple):
    """What is compiled: so many examples on each chip."""

    model: str
    topology: str
    examples: int
    lora_rank: int | None = None
    """None trains all parameters."""


CASES = (
    Case("paligemma-3b-224", "v5e:1x1", 4, 16),
    Case("paligemma-3b-224", "v5e:2x4", 4),
    Case("paligemma-3b-224", "v5e:2x4", 4, 16),
    Case("paligemma-3b-448", "v5e:2x4", 1, 16),
    Case("paligemma-3b-896", "v5e:2x4", 1, 16),
    Case("paligemma-3b-224", "v6e:2x2", 4),
    Case("paligemma2-10b-224", "v5e:2x4", 1, 16),
    Case("paligemma2-10b-224", "v6e:2x2", 1, 16),
)


def compile_step(case: Case, text_length: int) -> Program:
    """The step of `examples` a chip, for all chips of a slice such as `v5e:2x4`."""
    mesh = Mesh(np.array(slice_devices(case.topology)), ("data",))
    config = VARIANTS[case.model]

    def row(shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> jax.ShapeDtypeStruct:
        shape = (case.examples * mesh.size, *shape)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=by_rows(mesh))

    size, text = config.image_size, row((text_length,), jnp.int32)
    batch = Batch(row((size, size, 3), jnp.uint8), text, text, text)  # type: ignore[arg-type]
    trainer = Trainer(config, Recipe(1000, 50, lora_rank=case.lora_rank, remat=True), mesh)
    return compiled("training step", trainer.step.lower(*trainer.abstract, batch))


def main(
    model: Annotated[str | None, typer.Option(help="Only this published variant.")] = None,
    slice_: Annotated[str | None, typer.Option("--slice", help="Only this slice.")] = None,
    examples: Annotated[int, typer.Option(help="On each chip, with --model and --slice.")] = 4,
    lora_rank: Annotated[int | None, typer.Option(help="With --model and --slice.")] = None,
    text_length: Annotated[int, typer.Option(help="Tokens of prefix and suffix.")] = 128,
) -> None:
    """Prints the memory of each chip; exit code 1 if a step does not fit."""
    cases = [
        case for case in CASES if model in (None, case.model) and slice_ in (None, case.topology)
    ]
    if model and slice_:
        cases = [Case(model, slice_, examples, lora_rank)]
    print(
        "| model | slice | trains | examples a step | GiB arguments | temporaries | of a chip "
        "| compiled |\n|---|---|---|--:|--:|--:|--:|--:|"
    )
    fits = True
    for case in cases:
        chip = catalogue().named(case.topology.partition(":")[0])
        trains = f"LoRA, rank {case.lora_rank}" if case.lora_rank else "full"
        rows = case.examples * chips_of(case.topology)
        head = f"| {case.model} | {case.topology} | {trains} | {rows} |"
        try:
            step = compile_step(case, text_length)
        except JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(head, str(error).splitlines()[0], flush=True)
            fits = False
            continue
        share = step.memory / chip.hbm / _GIB
        fits = fits and share <= 1
        print(
            f"{head} {step.arguments / _GIB:.2f} | {step.temporaries / _GIB:.2f} | {share:.0%} "
            f"| {step.seconds:.0f} s |",
            flush=True,
        )
    sys.exit(0 if fits else 1)


if __name__ == "__main__":
    typer.run(main)
