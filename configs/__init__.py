"""What a job is: specs that users write, the summary that a run leaves, the output's schema."""

from paliflow.configs.annotate import AnnotateSpec, Sampling
from paliflow.configs.summary import RunSummary

__all__ = ["AnnotateSpec", "RunSummary", "Sampling"]
