"""What a job is: specs that users write, the summaries that runs leave, the output's schema.

A name of this package is imported from its module when it is used: making the classes of all
specs takes a process half a second, and a job is of one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paliflow.configs.annotate import AnnotateSpec, Sampling
    from paliflow.configs.calibrate import CalibrateSpec
    from paliflow.configs.cloud_filters import (
        ModerateTextFilter,
        PerspectiveFilter,
        SafeSearchFilter,
        SensitiveDataFilter,
    )
    from paliflow.configs.evaluate import EvaluateSpec
    from paliflow.configs.examples import EvaluationSet, ExampleSource
    from paliflow.configs.extract import ExtractSpec
    from paliflow.configs.filter import FilterSpec
    from paliflow.configs.finetune import Duration, FineTuneSpec, Lora
    from paliflow.configs.promote import PromoteSpec
    from paliflow.configs.prompts import PromptSpec
    from paliflow.configs.release import ReleaseSpec
    from paliflow.configs.safety import (
        DuplicatesFilter,
        NsfwFilter,
        PersonalDataFilter,
        QualityFilter,
        ToxicityFilter,
    )
    from paliflow.configs.summary import (
        CalibrateSummary,
        Comparison,
        EvaluateSummary,
        ExtractSummary,
        FilterSummary,
        FineTuneSummary,
        PromoteSummary,
        RunSummary,
    )
    from paliflow.configs.video import ClipSpec, VideoSpec

__all__ = [
    "AnnotateSpec",
    "CalibrateSpec",
    "CalibrateSummary",
    "ClipSpec",
    "Comparison",
    "DuplicatesFilter",
    "Duration",
    "EvaluateSpec",
    "EvaluateSummary",
    "EvaluationSet",
    "ExampleSource",
    "ExtractSpec",
    "ExtractSummary",
    "FilterSpec",
    "FilterSummary",
    "FineTuneSpec",
    "FineTuneSummary",
    "Lora",
    "ModerateTextFilter",
    "NsfwFilter",
    "PersonalDataFilter",
    "PerspectiveFilter",
    "PromoteSpec",
    "PromoteSummary",
    "PromptSpec",
    "QualityFilter",
    "ReleaseSpec",
    "RunSummary",
    "SafeSearchFilter",
    "Sampling",
    "SensitiveDataFilter",
    "ToxicityFilter",
    "VideoSpec",
]

_NAMES = {
    "annotate": ("AnnotateSpec", "Sampling"),
    "calibrate": ("CalibrateSpec",),
    "cloud_filters": (
        "ModerateTextFilter",
        "PerspectiveFilter",
        "SafeSearchFilter",
        "SensitiveDataFilter",
    ),
    "evaluate": ("EvaluateSpec",),
    "examples": ("EvaluationSet", "ExampleSource"),
    "extract": ("ExtractSpec",),
    "filter": ("FilterSpec",),
    "finetune": ("Duration", "FineTuneSpec", "Lora"),
    "promote": ("PromoteSpec",),
    "prompts": ("PromptSpec",),
    "release": ("ReleaseSpec",),
    "safety": (
        "DuplicatesFilter",
        "NsfwFilter",
        "PersonalDataFilter",
        "QualityFilter",
        "ToxicityFilter",
    ),
    "summary": (
        "CalibrateSummary",
        "Comparison",
        "EvaluateSummary",
        "ExtractSummary",
        "FilterSummary",
        "FineTuneSummary",
        "PromoteSummary",
        "RunSummary",
    ),
    "video": ("ClipSpec", "VideoSpec"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
