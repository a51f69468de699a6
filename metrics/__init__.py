"""What "good" means: pure functions from predictions and references to scores."""

from paliflow.metrics.answers import (
    anls,
    count_from_word,
    count_match,
    exact_match,
    relaxed_match,
    simple_vqa_accuracy,
    vqa_accuracy,
    vqa_normalize,
)
from paliflow.metrics.benchmarks import (
    anls_rrc,
    character_error_rate,
    pope_answer,
    science_qa_answer,
)
from paliflow.metrics.bootstrap import (
    bootstrap_interval,
    paired_bootstrap_interval,
    paired_bootstrap_lower_bound,
    ratio,
)
from paliflow.metrics.boxes import (
    DetectionScores,
    box_iou,
    count_matches,
    detection_f1,
    detection_scores,
    mask_iou,
    mean_iou,
)
from paliflow.metrics.captions import bleu, cider, cider_per_item, rouge_l, rouge_l_per_item
from paliflow.metrics.objects import Object
from paliflow.metrics.ptb import tokenize
from paliflow.metrics.registry import METRICS, Answers, Metric, Score, metrics_of_task

__all__ = [
    "METRICS",
    "Answers",
    "DetectionScores",
    "Metric",
    "Object",
    "Score",
    "anls",
    "anls_rrc",
    "bleu",
    "bootstrap_interval",
    "box_iou",
    "character_error_rate",
    "cider",
    "cider_per_item",
    "count_from_word",
    "count_match",
    "count_matches",
    "detection_f1",
    "detection_scores",
    "exact_match",
    "mask_iou",
    "mean_iou",
    "metrics_of_task",
    "paired_bootstrap_interval",
    "paired_bootstrap_lower_bound",
    "pope_answer",
    "ratio",
    "relaxed_match",
    "rouge_l",
    "rouge_l_per_item",
    "science_qa_answer",
    "simple_vqa_accuracy",
    "tokenize",
    "vqa_accuracy",
    "vqa_normalize",
]
