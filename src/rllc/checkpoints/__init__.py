"""Weights on disk: safetensors beside readable json."""
