"""What a process takes of its machine."""

import sys


def peak_memory(device: str = "cpu") -> int:
    """The most memory in bytes that this process has held: the GPU's on "cuda", else its resident memory."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
