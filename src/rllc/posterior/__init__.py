"""Sampling around a checkpoint: protocol, samplers, chains, estimate, diagnostics. No transformers here."""
