"""Write two small datasets on which it is known whether routing should pay, Alpaca columns plus `task`, seeded.

Run `python assets/make_sets.py`: it writes assets/sets/conflict.jsonl and assets/sets/single.jsonl.

conflict: the same lists of words in every task, and for each task another order as the answer, so that what one task
teaches contradicts the others. single: one of these tasks alone, as many rows, in as many phrasings.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

from make_demo import WORDS

SEED = 21
LISTS = 120  # of words; the conflict set has each of them in every task
SHORTEST, LONGEST = 4, 5  # words in a list

Order = Callable[[list[str]], list[str]]
TASKS: dict[str, tuple[Order, tuple[str, ...]]] = {
    "reverse": (
        lambda words: words[::-1],
        (
            "Reverse this list.",
            "Write the words backwards, last one first.",
            "Turn the list around, from end to start.",
        ),
    ),
    "alphabet": (
        sorted,
        ("Sort this list by the alphabet.", "Put the words in dictionary order.", "Order the words from A to Z."),
    ),
    "length": (
        lambda words: sorted(words, key=len),
        ("Sort this list by length.", "Put short words before long ones.", "Order by the number of letters."),
    ),
    "shift": (
        lambda words: [*words[1:], words[0]],
        ("Move the first word to the end.", "Shift the list by one place to the left.", "Rotate: the head goes last."),
    ),
    "swap": (
        lambda words: [words[-1], *words[1:-1], words[0]],
        ("Swap the first and the final word.", "Exchange both ends of the list.", "Let the outer two trade places."),
    ),
    "repeat": (
        lambda words: words,
        ("Repeat this list as it is.", "Copy the words unchanged.", "Echo the list, keep its sequence."),
    ),
}


def lists(count: int, generator: random.Random) -> list[list[str]]:
    """Different lists of words, none of which is in the order of any two tasks at once."""
    found: list[list[str]] = []
    while len(found) < count:
        words = generator.sample(WORDS, generator.randint(SHORTEST, LONGEST))
        answers = {tuple(order(words)) for order, _ in TASKS.values()}
        if len(answers) == len(TASKS) and words not in found:
            found.append(words)
    return found


def row(task: str, words: list[str], generator: random.Random) -> dict[str, str]:
    order, phrasings = TASKS[task]
    return {
        "instruction": generator.choice(phrasings),
        "input": ", ".join(words),
        "output": ", ".join(order(words)),
        "task": task,
    }


def make_sets(seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """The rows of each set."""
    generator = random.Random(seed)
    inputs = lists(LISTS * len(TASKS), generator)
    sets = {
        "conflict": [row(task, words, generator) for words in inputs[:LISTS] for task in TASKS],
        "single": [row("reverse", words, generator) for words in inputs],
    }
    for rows in sets.values():
        generator.shuffle(rows)
    return sets


def main() -> None:
    folder = Path(__file__).with_name("sets")
    for name, rows in make_sets().items():
        lines = (json.dumps(each) + "\n" for each in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
