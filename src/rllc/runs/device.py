"""Which device computes."""

from __future__ import annotations

import platform

import torch

from rllc.core.errors import RllcError


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" takes CUDA where there is one. Raises RllcError where CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RllcError("The device cuda was asked for, but torch finds none here.", "Use --device cpu, or install a torch with CUDA.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def described(device: torch.device) -> str:
    """What computes, as far as it decides the last bits of a number: "cuda, NVIDIA H100", or "cpu, x86_64 AVX512"."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    return f"{device.type}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
