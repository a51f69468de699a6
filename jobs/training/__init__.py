"""The parts of a fine-tuning run: its start, the gang of workers, checkpoints, figures, export."""
