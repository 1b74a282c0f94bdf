"""Refined local learning coefficients of the parts of a neural network (Wang et al., arXiv 2410.02984)."""

__version__ = "0.1.0"
