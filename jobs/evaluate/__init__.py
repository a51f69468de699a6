"""Evaluation: a checkpoint's answers about labelled examples, scored; promotion by the scores.

Others use `job.evaluate`, `promotion.promote` and `scoring`.
"""
