"""Batch vision for Airflow: PaliGemma on Ray, images and video in, Parquet out.

    >>> import paliflow
    >>> run = paliflow.annotate("photos/", prompts=["caption en"], output="annotations")
    >>> run.to_pandas()

Importing this package imports nothing else: what its names need is imported when they are used.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# Who has installed it and works in a checkout finds this folder first, which has nothing below it.
__path__ = extend_path(__path__, __name__)

if TYPE_CHECKING:
    from paliflow.configs.base import SpecError
    from paliflow.jobs.notebook import Annotations, annotate

    __version__: str

__all__ = ["Annotations", "SpecError", "__version__", "annotate"]

_HOMES = {
    "Annotations": "paliflow.jobs.notebook",
    "SpecError": "paliflow.configs.base",
    "annotate": "paliflow.jobs.notebook",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("paliflow")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
