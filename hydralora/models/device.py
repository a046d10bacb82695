"""The device that models run on."""

import os
from dataclasses import dataclass


def pick_device() -> str:
    """ "cuda", "mps" or "cpu": the fastest that this machine has."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True)
class Device:
    """The device that this machine computes on: "cuda", "mps" or "cpu", its name, and its free memory in bytes."""

    kind: str
    name: str
    free_bytes: int


def describe_device() -> Device:
    """The fastest device of this machine."""
    import psutil
    import torch

    kind = pick_device()
    if kind == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return Device(kind, torch.cuda.get_device_name(), free)
    name = "Apple GPU" if kind == "mps" else f"CPU, {os.cpu_count()} cores"
    return Device(kind, name, psutil.virtual_memory().available)
