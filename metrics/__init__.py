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
from paliflow.metrics.boxes import (
    DetectionScores,
    box_iou,
    detection_f1,
    detection_scores,
    mask_iou,
    mean_iou,
)
from paliflow.metrics.captions import bleu, cider, cider_per_item, rouge_l
from paliflow.metrics.ptb import tokenize

__all__ = [
    "DetectionScores",
    "anls",
    "bleu",
    "box_iou",
    "cider",
    "cider_per_item",
    "count_from_word",
    "count_match",
    "detection_f1",
    "detection_scores",
    "exact_match",
    "mask_iou",
    "mean_iou",
    "relaxed_match",
    "rouge_l",
    "simple_vqa_accuracy",
    "tokenize",
    "vqa_accuracy",
    "vqa_normalize",
]
