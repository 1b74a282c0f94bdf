"""The kinds of measurement that a run makes of its checkpoints: one file each."""
