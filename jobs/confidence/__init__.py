"""Confidence: raw scores of answers made frequencies, thresholds by precision, and their file.

`calibration` has the file and how it is found, `fitting` the statistics, `filling` the columns of
an annotation's rows. What is fitted to is an evaluation's, see `jobs.evaluate.calibrating`.
"""
