"""Components of three kinds of rows in many languages: python -m tests.benchmarks.languages [--rows 60,150,600].

Prints, for every language and set of kinds of tests/multilingual.py, the number of components and its agreement with
the kinds, over the seeds: of three, and with an adjusted Rand index of at least .8, they are right.
"""

import argparse
from statistics import mean

from hydralora.components import cluster, overlap
from tests.multilingual import LANGUAGES, rows_of_kinds, sets_of_kinds

KINDS, AGREES = 3, 0.8


def result(code: str, kinds: str, rows: int, seeds: int) -> tuple[list[int], list[float]]:
    """The number of components and the adjusted Rand index of each seed."""
    numbers, agreements = [], []
    for seed in range(seeds):
        texts, tasks = rows_of_kinds(code, kinds, rows, seed)
        clusters = cluster(texts, seed=seed)
        numbers.append(clusters.k)
        agreements.append(overlap(clusters.labels, tasks).ari)
    return numbers, agreements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="60,150,600")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    options = parser.parse_args()
    sizes = [int(rows) for rows in options.rows.split(",")]
    right = dict.fromkeys(sizes, 0)
    cases = 0
    print("language, kinds   " + "".join(f"{rows:5} rows: N   ARI" for rows in sizes))
    for code in options.languages.split(","):
        for kinds in sets_of_kinds(code):
            cells = []
            for rows in sizes:
                numbers, agreements = result(code, kinds, rows, options.seeds)
                right[rows] += sum(
                    number == KINDS and ari >= AGREES for number, ari in zip(numbers, agreements, strict=True)
                )
                cells.append(f"{','.join(map(str, numbers)):>14} {mean(agreements):5.2f}")
            cases += options.seeds
            print(f"{code} {kinds:13}" + "".join(cells), flush=True)
    print("right: " + ", ".join(f"{count} of {cases} with {rows} rows" for rows, count in right.items()))


if __name__ == "__main__":
    main()
