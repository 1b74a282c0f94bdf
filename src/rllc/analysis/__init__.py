"""Curves, stages, clusters, head types and comparisons. Numpy in, frozen results out; no torch, no disk."""
