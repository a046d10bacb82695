"""What a study measures of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hydralora.runs.results import RunResults
from hydralora.runs.state import Stage

Measure = Literal[
    "loss",
    "exact_match",
    "parameters",
    "forgetting",
    "seconds",
    "tokens_per_second",
    "peak_memory",
    "energy",
    "energy_cpu",
    "energy_gpu",
    "energy_ram",
    "mutual_information",
    "gate_entropy",
    "head_cosine",
    "benchmarks",
]
Better = Literal["less", "more"]


@dataclass(frozen=True)
class Meaning:
    """How a measure is read.

    Attributes:
        label: with its unit, for a table's head.
        of: takes it from a run's results; None where it was not measured.
        better: whether less or more of it is better; None where neither is.
        decimals: in a table.
    """

    label: str
    of: Callable[[RunResults], float | None]
    better: Better | None = None
    decimals: int = 3


def _tuned(results: RunResults, name: Literal["loss", "exact_match"]) -> float | None:
    return getattr(results.tuned, name) if results.tuned else None


def _energy(part: str, label: str) -> Meaning:
    return Meaning(label, lambda results: (results.energy_kwh or {}).get(part), "less", 5)


def _benchmarks(results: RunResults) -> float | None:
    """The mean of each task's first metric, which is its main one."""
    first = [next(iter(scores.tuned.values())) for scores in results.benchmarks.values() if scores.tuned]
    return sum(first) / len(first) if first else None


MEASURES: dict[str, Meaning] = {
    "loss": Meaning("loss (nats per token)", lambda results: _tuned(results, "loss"), "less"),
    "exact_match": Meaning("exact match", lambda results: _tuned(results, "exact_match"), "more"),
    "parameters": Meaning(
        "parameters", lambda results: results.parameters.total if results.parameters else None, "less", 0
    ),
    "forgetting": Meaning(
        "forgetting (nats per token)",
        lambda results: results.forgetting.increase if results.forgetting else None,
        "less",
    ),
    "seconds": Meaning("seconds of training", lambda results: results.seconds.get(Stage.TRAINING.value), "less", 1),
    "tokens_per_second": Meaning("tokens/s", lambda results: results.tokens_per_second, "more", 0),
    "peak_memory": Meaning("memory (bytes)", lambda results: results.peak_memory_bytes, "less", 0),
    "energy": _energy("total", "energy (kWh)"),
    "energy_cpu": _energy("cpu", "energy of the CPU (kWh)"),
    "energy_gpu": _energy("gpu", "energy of the GPU (kWh)"),
    "energy_ram": _energy("ram", "energy of the memory (kWh)"),
    "mutual_information": Meaning("mutual information", lambda results: results.mutual_information),
    "benchmarks": Meaning("benchmarks", _benchmarks, "more"),
    "gate_entropy": Meaning("entropy of gates", lambda results: results.gate_entropy),
    "head_cosine": Meaning("cosine of heads", lambda results: results.head_cosine),
}
