"""Losses with a known learning coefficient that speak the protocol, and the points to sample them at (METHOD 3)."""
