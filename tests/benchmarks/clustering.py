"""How well components and their number hold up on a file: python -m tests.benchmarks.clustering FILE [--seeds 15].

Prints, for every seed, the number of components with its sureness and its agreement with the file's task column, the
numbers that rejected rules give on the same curve, and the same for each task's rows alone, which are one kind.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydralora.components import Clusters, cluster, kneedle, overlap

COLUMNS = (("instruction", "input"), ("question", None), ("prompt", None))


def read(file: Path) -> tuple[list[str], list[str | None]]:
    """The questions of a JSONL file, and the tasks where it names them."""
    texts: list[str] = []
    tasks: list[str | None] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked, context = next(pair for pair in COLUMNS if pair[0] in row)
        more = row.get(context) or "" if context else ""
        texts.append(f"{row[asked]}\n\n{more}" if more.strip() else row[asked])
        tasks.append(row.get("task"))
    return texts, tasks


def found(texts: Sequence[str], seeds: int) -> Iterator[tuple[int, Clusters, float]]:
    """The clusters of each seed, and the CPU seconds they took."""
    for seed in range(seeds):
        start = time.process_time()
        clusters = cluster(texts, seed=seed)
        yield seed, clusters, time.process_time() - start


def show(name: str, texts: Sequence[str], tasks: Sequence[str | None], seeds: int) -> None:
    """One line a seed, for the whole file."""
    print(f"{name}: {len(texts)} rows, {len(set(tasks) - {None})} tasks")
    print("seed   N  ARI   NMI   sureness           kneedle  silhouette  CPU s")
    for seed, clusters, seconds in found(texts, seeds):
        agreement = overlap(clusters.labels, tasks) if any(tasks) else None
        shown = f"{agreement.ari:.3f} {agreement.nmi:.3f}" if agreement else "  -     -  "
        best = max(clusters.silhouette, key=lambda pair: pair[1])[0]
        choice = clusters.choice
        assert choice is not None
        print(
            f"{seed:4} {clusters.k:3}  {shown} {choice.sureness:.2f} {choice.grade:13} {kneedle(clusters.sse):7} "
            f"{best:11} {seconds:6.1f}"
        )


def show_tasks(texts: Sequence[str], tasks: Sequence[str | None], seeds: int) -> None:
    """One line a task, its rows alone."""
    print("\none task's rows alone: N over the seeds (times)")
    for task in sorted({task for task in tasks if task}):
        rows = [text for text, of in zip(texts, tasks, strict=True) if of == task]
        numbers = Counter(clusters.k for _, clusters, _ in found(rows, seeds))
        print(f"{task:45} {', '.join(f'{n} ({times})' for n, times in numbers.most_common())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=15)
    options = parser.parse_args()
    texts, tasks = read(options.file)
    show(options.file.name, texts, tasks, options.seeds)
    if any(tasks):
        show_tasks(texts, tasks, options.seeds)


if __name__ == "__main__":
    main()
