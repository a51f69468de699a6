"""Extraction: sampled frames of videos as an image dataset. Others use `job.extract`."""
