"""Draws annotated images: `python -m paliflow.benchmarks.picture OUTPUT PICTURE`."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow.dataset as ds
import typer
from PIL import Image, ImageDraw, ImageFont

TILE, CAPTION, COLUMNS = 300, 74, 4
INK, PAPER, BOX = (30, 30, 36), (255, 255, 255), (214, 40, 57)


def draw_tile(path: str, rows: list[dict[str, Any]]) -> Image.Image:
    """One image with its boxes and scores, its texts underneath."""
    tile = Image.new("RGB", (TILE, TILE + CAPTION), PAPER)
    with Image.open(path) as image:
        tile.paste(image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC))
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(14)
    texts = []
    for row in rows:
        x_scale, y_scale = TILE / row["width"], TILE / row["height"]
        for d in row["detections"] or ():
            corner = d["x_min"] * x_scale, d["y_min"] * y_scale
            draw.rectangle((*corner, d["x_max"] * x_scale, d["y_max"] * y_scale), None, BOX, 2)
            label, above = f"{d['label']} {d['score']:.2f}", (corner[0], max(corner[1] - 18, 0))
            draw.rectangle(draw.textbbox(above, label, font), fill=PAPER)
            draw.text(above, label, fill=BOX, font=font)
        if row["detections"] is None:
            texts.append(f"{row['prompt'].removeprefix('answer en ')}: {row['text']}")
    for line, text in enumerate(texts[:3]):
        draw.text((6, TILE + 6 + 22 * line), text, fill=INK, font=font)
    return tile


def main(
    output: Annotated[Path, typer.Argument(help="A run's folder, or the folder of all runs.")],
    picture: Annotated[Path, typer.Argument(help="The PNG to write.")],
    count: int = 8,
) -> None:
    """Draws the first COUNT images of a run with what was found on them."""
    table = ds.dataset(output, partitioning="hive").to_table(filter=ds.field("status") == "ok")
    by_image = defaultdict(list)
    for row in table.to_pylist():
        by_image[row["source_uri"]].append(row)
    chosen = list(by_image.items())[:count]
    height = -(-len(chosen) // COLUMNS) * (TILE + CAPTION)
    sheet = Image.new("RGB", (COLUMNS * TILE + 10 * (COLUMNS - 1), height), PAPER)
    for number, (path, rows) in enumerate(chosen):
        at = number % COLUMNS * (TILE + 10), number // COLUMNS * (TILE + CAPTION)
        sheet.paste(draw_tile(path, rows), at)
    sheet.save(picture)


if __name__ == "__main__":
    typer.run(main)
