"""Runs side by side: their results beside their base models', and the settings that differ."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydralora import figures
from hydralora.runs.comparison import RunMeasurements, RunSummary, compare
from hydralora.runs.run import Run
from hydralora.runs.scores import Score

from ...services import Services
from ..run_choices import Choice

ALL = "all rows"
ENERGY = {"energy, CPU": "cpu", "energy, GPU": "gpu", "energy, RAM": "ram"}


@dataclass(frozen=True)
class ComparisonView:
    """Runs side by side, by `names`: in `rows` two cells of each (base model, run); `differences` of their settings."""

    sentence: str
    figure: str = ""
    names: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    differences: list[list[str]] = field(default_factory=list)


def choices(services: Services, runs: Sequence[Choice]) -> list[Choice]:
    """The same runs, labelled with the names that people gave them."""
    return [(Run(services.store.folder / run_id).label().name or label, run_id) for label, run_id in runs]


def comparison(services: Services, run_ids: Sequence[str]) -> ComparisonView:
    """Runs side by side, each beside its own base model."""
    runs = [services.run(run_id) for run_id in run_ids]
    if len(runs) < 2:
        return ComparisonView("Choose two runs or more to compare.")
    compared = compare([(run, services.jobs.refresh(run)) for run in runs])
    names = [run.label().name or run.id for run in runs]
    return ComparisonView(
        "Solid: training loss; dotted: a sample of the held-out rows; marks: all held-out rows, before and after. "
        "Losses are comparable only between runs with the same training rows and the same held-out rows. A cell is "
        "blank where nothing was measured. Each run numbers its components itself.",
        figures.losses([(name, services.events(run)) for name, run in zip(names, runs, strict=True)]),
        names,
        _result_rows(compared.results),
        [[name, *map(_value, values.values())] for name, values in compared.differences.items()],
    )


def _result_rows(results: Sequence[RunMeasurements]) -> list[list[str]]:
    """Results with two cells for each run: its base model's and its own."""
    whole = (
        (cell(result.base_loss, result.base_exact_match), cell(result.loss, result.exact_match)) for result in results
    )
    rows = [[ALL, *(text for pair in whole for text in pair)]]
    groups = [result.pairs() for result in results]  # of each run
    for group in dict.fromkeys(name for pairs in groups for name in pairs):
        rows.append([group_name(group), *_score_cells(pairs.get(group, (None, None)) for pairs in groups)])
    taken = {
        "parameters": ["" if result.parameters is None else f"{result.parameters:,}" for result in results],
        "training": ["" if result.seconds is None else f"{result.seconds:,.0f} s" for result in results],
        "energy": [_kwh(result.energy_kwh) for result in results],
    }
    taken |= {
        name: [_kwh((result.energy_parts_kwh or {}).get(part)) for result in results] for name, part in ENERGY.items()
    }
    return rows + [[name, *(text for value in cells for text in ("", value))] for name, cells in taken.items()]


def _score_cells(pairs: Iterable[tuple[Score | None, Score | None]]) -> Iterator[str]:
    return (cell(score.loss, score.exact_match) if score else "" for pair in pairs for score in pair)


def _kwh(energy: float | None) -> str:
    return "" if energy is None else f"{energy:.6f} kWh"


def energy(summary: RunSummary) -> str:
    """A run's energy use."""
    parts = ", ".join(f"{part.upper()} {kwh:.6f}" for part, kwh in (summary.energy_parts_kwh or {}).items())
    return _kwh(summary.energy_kwh) + (f" ({parts})" if parts else "")


def group_name(group: str) -> str:
    """The name shown for "task NAME" or "component NUMBER"; components count from 1, as everywhere on the page."""
    kind, _, name = group.partition(" ")
    return f"{kind} {int(name) + 1}" if kind == "component" else group


def cell(loss: float | None, exact_match: float | None) -> str:
    """A measurement; empty if there is none."""
    if exact_match is None:
        return ""
    return f"loss {'not a number' if loss is None else f'{loss:.3f}'}, exact match {exact_match:.1%}"


def _value(value: object) -> str:
    """A setting's value, without folders of this machine."""
    values = value if isinstance(value, list) else [value]
    return ", ".join(
        Path(item).name if isinstance(item, str) and Path(item).is_absolute() else str(item) for item in values
    )
