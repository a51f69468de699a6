"""Labelled examples: read from where they are, planned once, fed to training in a seeded order."""
