"""Tests of what makes and measures the bundled checkpoint."""
