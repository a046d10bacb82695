"""Resources that a process uses, and those that are free."""

import sys
from pathlib import Path

import psutil

from hydralora.runs.events import Usage

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "OutOfMemoryError")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error, of Python, PyTorch or CUDA, says that memory ran out."""
    text = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or any(sign in text for sign in NO_MEMORY)


def peak_memory(device: str = "cpu") -> int:
    """The most memory in bytes that this process has held: the GPU's on "cuda", else its resident memory."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":  # getrusage may report the larger peak of the parent process
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts in bytes


class UsageMeter:
    """Measures this process's resources, and the free ones of its machine."""

    def __init__(self, device: str, folder: Path) -> None:
        self._device, self._folder = device, folder
        self._process = psutil.Process()
        self._process.cpu_percent()  # the next call returns the use since this one

    def look(self) -> Usage:
        """The current use; of the processor, since the last look."""
        gpu: dict[str, int] = {}
        if self._device.startswith("cuda"):
            import torch

            free, _ = torch.cuda.mem_get_info()
            gpu = {"gpu_memory_bytes": torch.cuda.memory_reserved(), "gpu_free_bytes": free}
        return Usage(
            cpu_percent=self._process.cpu_percent(),
            memory_bytes=self._process.memory_info().rss,
            memory_free_bytes=psutil.virtual_memory().available,
            disk_free_bytes=psutil.disk_usage(str(self._folder)).free,
            **gpu,
        )
