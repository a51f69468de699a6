"""Whether it would pay to refill a batch's rows as they end, by the lengths of a run's answers.

    python -m paliflow.benchmarks.refill OUTPUT --batch 64 --batch 256

Paliflow decodes a batch until its longest answer has ended. Refilled, a row that ends would be
followed by the next one at once. Steps of both are counted for the answers of OUTPUT, in their
order, prompt by prompt; seconds follow by the roofline of `configs/chips.yaml` for a published
model. Prefill is the same for both, and refilling itself (a prefill between two steps, caches
written row by row, a shape of its own to compile) costs nothing here: the gain is a bound.
"""

from heapq import heapreplace
from pathlib import Path
from typing import Annotated

import pyarrow.compute as pc
import pyarrow.dataset as ds
import typer

from paliflow.configs.chips import catalogue
from paliflow.model.config import VARIANTS
from paliflow.model.cost import Shape, work


def batched(lengths: list[int], batch: int) -> int:
    """Steps of decoding, batch by batch; prefill gives the first token."""
    return sum(max(lengths[start : start + batch]) - 1 for start in range(0, len(lengths), batch))


def refilled(lengths: list[int], batch: int) -> int:
    """Steps of decoding if each row that ends is followed by the next at once."""
    ends = [0] * min(batch, len(lengths))
    for length in lengths:
        heapreplace(ends, ends[0] + length - 1)
    return max(ends)


def main(
    output: Path,
    batch: Annotated[list[int] | None, typer.Option(help="Rows. Default: 64 and 256.")] = None,
    model: Annotated[str, typer.Option(help="A published variant.")] = "paligemma-3b-224",
    chip: Annotated[str, typer.Option(help="As `paliflow plan --chip`.")] = "v5e",
) -> None:
    """Prints a table with a line for each prompt and batch."""
    table = ds.dataset(output, format="parquet").to_table(columns=["prompt", "token_count"])
    table = table.filter(pc.is_valid(table["token_count"]))
    kind = catalogue().named(chip)
    print(
        "| prompt | answers | tokens, mean | longest | batch | steps | refilled | of a run's time |"
        "\n|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    for prompt in sorted(set(table["prompt"].to_pylist())):
        lengths = table.filter(pc.equal(table["prompt"], prompt))["token_count"].to_pylist()
        each = work(VARIANTS[model], Shape("bfloat16", 8, max(lengths)))
        mean = sum(lengths) / len(lengths)
        for size in batch or (64, 256):
            # Whole batches, since the last rows of a run have nothing to be followed by.
            whole = lengths[: len(lengths) // size * size]
            steps, fewer = batched(whole, size), refilled(whole, size)
            step = each.decode.seconds(kind, "bfloat16", size)
            rest = sum(x.seconds(kind, "bfloat16", len(whole)) for x in (each.vision, each.prefill))
            saved = (steps - fewer) * step / (rest + steps * step)
            print(
                f"| {prompt} | {len(whole)} | {mean:.1f} | {max(lengths)} | {size} | {steps} "
                f"| {fewer} | -{saved:.1%} |"
            )


if __name__ == "__main__":
    typer.run(main)
