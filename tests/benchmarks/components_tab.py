"""From a file to components and their map, as the page does it: python -m tests.benchmarks.components_tab FILE.

Rows of FILE are repeated with other words and numbers until there are as many as asked for. For each size it prints
seconds until number, components and PCA's map could show, the most memory, and the seconds of the slower maps; the
last line compares the largest size with the smallest.
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SIZES = (10_000, 15_000, 100_000)
CHANGED = 0.15  # of the words and numbers of a repeated row


def write_rows(source: Path, path: Path, count: int) -> None:
    """The rows of a JSONL file, and then copies of them in which some words of all rows stand in for others."""
    draw = random.Random(0)
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    words = re.findall(r"\w+", " ".join(json.dumps(row) for row in rows[:2000]))
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            row = dict(rows[i % len(rows)])
            if i >= len(rows):
                question = next(key for key in ("instruction", "question", "prompt") if key in row)
                row[question] = re.sub(
                    r"\w+", lambda found: draw.choice(words) if draw.random() < CHANGED else found[0], row[question]
                )
            file.write(json.dumps(row) + "\n")


def measure(path: Path, workspace: Path, maps: bool) -> Iterator[str]:
    """Upload, cluster and draw, telling what each took."""
    from app.actions import data
    from app.actions.components import row_map
    from app.actions.components import tab as components
    from app.actions.recipes import component_settings
    from app.services import Services
    from app.services.background import Done

    services = Services(workspace)
    asked = component_settings(services, "", {})
    began = start = time.perf_counter()

    def lap() -> float:
        nonlocal start
        start, before = time.perf_counter(), start
        return start - before

    *_, done = data.upload(services, [str(path)])
    assert isinstance(done, Done)
    dataset = done.value
    rows = len(services.read_dataset(dataset).examples)
    yield f"{rows:8} rows  read {lap():5.1f} s"
    *_, found = components.find(services, dataset, asked)
    assert isinstance(found, Done)
    yield f"cluster {lap():5.1f} s  N = {found.value.k}"
    list(row_map.draw(services, dataset, asked, "pca", "component"))
    yield f"PCA map {lap():4.1f} s"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield f"in all {time.perf_counter() - began:6.1f} s  {most / 2**10:5.0f} MiB at most"
    for method in ("umap", "tsne") if maps else ():
        lap()
        *_, view = row_map.draw(services, dataset, asked, method, "component")
        sample = re.search(r"[\d,]+ of [\d,]+", view.caption)
        yield f"{method} map {lap():5.1f} s ({sample[0] if sample else 'every row'})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--maps", action="store_true", help="The slower maps as well.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        for part in measure(chosen.file, chosen.measure, chosen.maps):
            print(part, end="  ", flush=True)
        return
    seconds = {}
    for count in chosen.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            write_rows(chosen.file, path, count)
            command = [sys.executable, "-m", "tests.benchmarks.components_tab", str(path), "--measure", folder]
            done = subprocess.run(
                command + ["--maps"] * chosen.maps,
                check=True,
                env=os.environ | {"HYDRALORA_CACHE": folder},
                stdout=subprocess.PIPE,
                text=True,
            )
            print(done.stdout)
            seconds[count] = float(re.search(r"in all +([\d.]+)", done.stdout)[1])  # type: ignore[index]
    least, most = min(seconds), max(seconds)
    if least < most:
        print(f"{most / least:.1f} times the rows take {seconds[most] / seconds[least]:.1f} times as long")


if __name__ == "__main__":
    main()
