"""Runs side by side: what came of each beside its base model, and where their settings differ."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydralora import figures
from hydralora.runs.comparison import compare
from hydralora.runs.run import Run

from ...services import Services

ALL = "all rows"
GROUPS = {"per_task": "task", "per_component": "component"}  # of a run's rows, and what one is called
TAKEN = {  # rows of a comparison: where a run's value stands, and how it is written
    "parameters": ("parameters", "{:,.0f}"),
    "training": ("seconds", "{:,.0f} s"),
    "energy": ("total", "{:.6f} kWh"),
    "energy, CPU": ("cpu", "{:.6f} kWh"),
    "energy, GPU": ("gpu", "{:.6f} kWh"),
    "energy, RAM": ("ram", "{:.6f} kWh"),
}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, by `names`: in `rows` two cells of each (base model, run); `differences` of their settings."""

    sentence: str
    figure: str = ""
    names: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    differences: list[list[str]] = field(default_factory=list)


def choices(services: Services, runs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """`runs`, (label, id) of each, by the names that a person gave them."""
    return [(Run(services.store.folder / run_id).label().name or shown, run_id) for shown, run_id in runs]


def comparison(services: Services, run_ids: Sequence[str]) -> Comparison:
    """Runs side by side, each beside its own base model."""
    runs = [services.run(run_id) for run_id in run_ids]
    if len(runs) < 2:
        return Comparison("Choose two runs or more to compare.")
    states = [services.jobs.refresh(run) for run in runs]
    compared = compare(list(zip(runs, states, strict=True)))
    names = [run.label().name or run.id for run in runs]
    return Comparison(
        "Solid: training loss; dotted: a sample of the held-out rows; marks: all of them, before and after. Runs on "
        "other rows, or with other held-out rows, can't be compared by their loss. A cell is blank where nothing was "
        "measured; components are numbered by each run for itself.",
        figures.losses([(name, services.events(run)) for name, run in zip(names, runs, strict=True)]),
        names,
        _result_rows(compared["results"]),
        [[name, *(_value(value) for value in values.values())] for name, values in compared["differences"].items()],
    )


def _result_rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """What came of each run, two cells for it: its base model's, and its own."""
    rows = [[ALL, *_side_by_side((_of_all_rows(result, "base_"), _of_all_rows(result)) for result in results)]]
    for key, kind in GROUPS.items():
        for group in dict.fromkeys(group for result in results for group in (*result["base"][key], *result[key])):
            pairs = ((result["base"][key].get(group), result[key].get(group)) for result in results)
            rows.append([group_name(kind, group), *_side_by_side(pairs)])
    taken = [result | {"total": result["energy_kwh"]} | (result["energy_parts_kwh"] or {}) for result in results]
    for name, (key, form) in TAKEN.items():
        cells = ["" if of.get(key) is None else form.format(of[key]) for of in taken]
        rows.append([name, *(one for own in cells for one in ("", own))])
    return rows


def _side_by_side(pairs: Iterable[tuple[dict[str, Any] | None, dict[str, Any] | None]]) -> Iterator[str]:
    return (cell(scores["loss"], scores["exact_match"]) if scores else "" for pair in pairs for scores in pair)


def _of_all_rows(result: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return {key: result[prefix + key] for key in ("loss", "exact_match")}


def energy(result: dict[str, Any]) -> str:
    """What a run took, by its summary (`hydralora.comparing`)."""
    parts = ", ".join(f"{part.upper()} {kwh:.6f}" for part, kwh in (result["energy_parts_kwh"] or {}).items())
    return f"{result['energy_kwh']:.6f} kWh" + (f" ({parts})" if parts else "")


def group_name(kind: str, group: str) -> str:
    """What a task, or a component, is called; components count from 1, as everywhere on the page."""
    return f"{kind} {int(group) + 1 if kind == 'component' else group}"


def cell(loss: float | None, exact_match: float | None) -> str:
    """A measurement; empty where there is none."""
    if exact_match is None:
        return ""
    return f"loss {'not a number' if loss is None else f'{loss:.3f}'}, exact match {exact_match:.1%}"


def _value(value: Any) -> str:
    """A setting's value, without folders of this machine."""
    values = value if isinstance(value, list) else [value]
    shown = (Path(one).name if isinstance(one, str) and Path(one).is_absolute() else str(one) for one in values)
    return ", ".join(shown)
