"""Which device computes."""

from __future__ import annotations

import math
import platform

import torch

from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape
from rllc.runs.memory import total_bytes


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


def check_fits(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> None:
    """Raises RllcError where the weights alone are more than the device's whole memory, before anything is read."""
    needed, there = sum(map(math.prod, shape.tensors().values())) * dtype.itemsize, device_bytes(device)
    if needed > there:
        where = "this GPU" if device.type == "cuda" else "this machine"
        raise RllcError(
            f"The model's weights take {needed / 1e9:.1f} GB in {str(dtype).removeprefix('torch.')}, and {where} has {there / 1e9:.1f} GB: "
            "a unit is computed on one device, which has to hold the model and a pass.",
            "Take a device with more memory, --device cpu on a machine that has it, or a smaller model of the series; "
            "more GPUs do not help, since models are not split among them.",
        )


def device_bytes(device: torch.device) -> int:
    """The whole memory of a device."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total_bytes()
