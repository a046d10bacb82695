"""What a model is computed on."""

import os
from typing import Any


def pick_device() -> str:
    """ "cuda", "mps" or "cpu": the fastest that this machine has."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe_device() -> dict[str, Any]:
    """The device's kind and name, and its free memory in bytes."""
    import psutil
    import torch

    kind = pick_device()
    if kind == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return {"kind": kind, "name": torch.cuda.get_device_name(), "free_bytes": free}
    name = "Apple GPU" if kind == "mps" else f"CPU, {os.cpu_count()} cores"
    return {"kind": kind, "name": name, "free_bytes": psutil.virtual_memory().available}
