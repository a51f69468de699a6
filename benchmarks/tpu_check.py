"""Compiles what Paliflow runs for TPU slices, on a machine without one: does it fit?

    make tpu-check
    python -m paliflow.benchmarks.tpu_check --model paligemma2-10b-224 --slice v5e:2x4 \\
        --model-parallel 4

The compiler is the real one, from the package `libtpu` (the extra `tpu-aot`). Layers are apart and
not in a loop, so that it counts them all; only attention's blocks, from 448 pixels on, are in one.
Exit code 1 if a program does not fit, or if chips that need not talk do. Images a second are what
follows for a batch, with the share of its peaks that `configs/chips.yaml` expects of a chip.
"""

import sys
from math import prod
from typing import Annotated, NamedTuple

import typer

from paliflow.configs.chips import Dtype as DtypeName
from paliflow.configs.chips import catalogue
from paliflow.model.aot import compile_inference
from paliflow.model.config import VARIANTS
from paliflow.model.cost import Phase, Shape

_GIB = 2**30


class Case(NamedTuple):
    """What is compiled: so many rows on each chip."""

    model: str
    topology: str
    rows: int
    model_parallel: int = 1
    dtype: DtypeName = "bfloat16"


CASES = (
    Case("paligemma-3b-224", "v5e:1x1", 8),
    Case("paligemma-3b-224", "v5e:1x1", 8, dtype="int8"),
    Case("paligemma-3b-224", "v5e:2x4", 64),
    Case("paligemma-3b-448", "v5e:2x4", 16),
    Case("paligemma-3b-896", "v5e:2x4", 4),
    Case("paligemma-3b-224", "v6e:2x2", 128),
    Case("paligemma-3b-448", "v6e:2x2", 32),
    Case("paligemma-3b-896", "v6e:2x2", 8),
    Case("paligemma2-3b-896", "v5e:2x4", 2),
    Case("paligemma2-10b-224", "v5e:2x4", 4, model_parallel=4),
    Case("paligemma2-10b-224", "v6e:2x2", 8, model_parallel=2),
    Case("paligemma2-28b-224", "v5e:2x4", 1, model_parallel=8),
    Case("paligemma2-28b-224", "v6e:2x4", 4, model_parallel=8),
    Case("paligemma2-28b-224", "v5e:4x4", 4, model_parallel=16),  # of four hosts
)


def main(
    model: Annotated[str | None, typer.Option(help="Only this published variant.")] = None,
    slice_: Annotated[str | None, typer.Option("--slice", help="Only this slice.")] = None,
    rows: Annotated[int, typer.Option(help="On each chip, with --model and --slice.")] = 8,
    model_parallel: Annotated[int, typer.Option(help="With --model and --slice.")] = 1,
    dtype: Annotated[str, typer.Option(help="bfloat16 or int8; with --model and --slice.")] = (
        "bfloat16"
    ),
    prompt_tokens: int = 8,
    new_tokens: int = 20,
) -> None:
    """Prints what each program takes of each chip."""
    cases = [
        case for case in CASES if model in (None, case.model) and slice_ in (None, case.topology)
    ]
    if model and slice_:
        cases = [Case(model, slice_, rows, model_parallel, dtype)]  # type: ignore[arg-type]
    print(
        "| model | slice | rows a chip | program | GiB | of a chip | TFLOP | GB accessed "
        "| collectives | images/s a chip | compiled |\n"
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    fits = True
    for case in cases:
        chip = catalogue().named(case.topology.partition(":")[0])
        shape = Shape(case.dtype, prompt_tokens, new_tokens, model_parallel=case.model_parallel)
        batch = case.rows * chips_of(case.topology)
        programs = compile_inference(VARIANTS[case.model], shape, case.topology, batch)
        # The compiler's figures are of all rows.
        seconds = [
            Phase(each.flops, 0.0, round(each.accessed), 0, 1).seconds(chip, case.dtype, 1)
            for each in programs
        ]
        rate = case.rows / (seconds[0] + (new_tokens - 1) * seconds[1])
        for program in programs:
            share = program.memory / chip.hbm / _GIB
            apart = case.model_parallel == 1
            fits = fits and share <= 1 and not (apart and program.collectives)
            over = f" over {case.model_parallel}" if not apart else ""
            print(
                f"| {case.model}, {case.dtype} | {case.topology}{over} | {case.rows} "
                f"| {program.name} | {program.memory / _GIB:.2f} | {share:.0%} "
                f"| {program.flops / 1e12:.3g} | {program.accessed / 1e9:.3g} "
                f"| {program.collectives} | {rate:.3g} | {program.seconds:.0f} s |",
                flush=True,
            )
    sys.exit(0 if fits else 1)


def chips_of(topology: str) -> int:
    """How many chips a slice such as `v5e:2x4` has."""
    return prod(map(int, topology.partition(":")[2].split("x")))


if __name__ == "__main__":
    typer.run(main)
