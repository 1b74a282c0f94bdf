"""The training recipe and the loop that yields (step, weights, metrics). No printing, no disk."""
