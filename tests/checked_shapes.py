"""Checks while tests run what the model's signatures say of arrays, by jaxtyping and beartype."""

from pathlib import Path

import jaxtyping
from beartype import BeartypeConf, beartype

from paliflow.model import shapes

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as mypy has it


def check_shapes() -> None:
    """Has the modules of the model that are imported from now on check each call in this process.

    They are those that import `model/shapes.py`, which gets jaxtyping's types for its own.
    """
    for name in shapes.__all__:
        setattr(shapes, name, getattr(jaxtyping, name))
    modules = [
        f"paliflow.model.{source.stem}"
        for source in Path(shapes.__file__).parent.glob("*.py")
        if "from paliflow.model.shapes import" in source.read_text()
    ]
    jaxtyping.install_import_hook(modules, f"{__name__}.check")
