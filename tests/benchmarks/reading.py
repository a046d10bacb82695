"""Reading a large JSONL file, at two sizes: seconds, and the most memory: python -m tests.benchmarks.reading."""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [f"word{i}" for i in range(5000)]
BAD_EVERY = 1000  # rows


def write_rows(path: Path, size: int) -> None:
    """Rows of about a hundred words, some of them without an answer, until the file has `size` bytes."""
    draw = random.Random(0)
    written = row = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            question, answer = " ".join(draw.choices(WORDS, k=60)), " ".join(draw.choices(WORDS, k=40))
            values = {"instruction": f"{row} {question}", "output": "" if row % BAD_EVERY == 0 else answer}
            written += file.write(json.dumps(values) + "\n")
            row += 1


def measure(path: Path) -> None:
    """Read the file, and print what it took."""
    from hydralora.data.dataset import read_dataset

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    data = read_dataset(path)
    seconds = time.perf_counter() - start
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{path.stat().st_size / 2**20:6.0f} MiB  {data.rows:8} rows  {sum(data.by_kind.values()):5} problems  "
        f"{seconds:6.1f} s  {most / 2**10:6.0f} MiB at most, {before / 2**10:.0f} of them before reading"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure(chosen.measure)
        return
    for size in (chosen.megabytes // 10, chosen.megabytes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            write_rows(path, size * 2**20)
            command = [sys.executable, "-m", "tests.benchmarks.reading", "--measure", str(path)]
            subprocess.run(command, check=True, env=os.environ | {"HYDRALORA_CACHE": folder})


if __name__ == "__main__":
    main()
