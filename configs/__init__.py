"""What a job is: specs that users write, the summaries that runs leave, the output's schema."""

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
