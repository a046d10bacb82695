"""Ways to initialise the router, compared by mutual information of component and head, head cosine, and loss.

First the effect of many initialisations before training; then whole runs with the important ones, the published one
and a plain LoRA of equal size.
"""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydralora.analysis.head_use import head_use
from hydralora.data.encoding import IGNORED, Encoded
from hydralora.errors import ConfigError
from hydralora.files import write_json
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import NoteEvent, OnEvent
from hydralora.runs.records import Record
from hydralora.training.monitor import Monitor
from hydralora.training.preparation import Prepared, prepare
from hydralora.training.run import train
from hydralora.training.sizes import equal_rank
from hydralora.tuner.router_init import ROWS_PER_COMPONENT, SHRINKAGE, init_router

HELDOUT = 120  # rows at most, so that evaluating takes less time than training
MEASURED = ("mutual_information", "head_cosine", "loss", "exact_match")


class Cell(Record):
    """The measurements of one start or one run; a start has only its mutual information."""

    mutual_information: float | None = None
    head_cosine: float | None = None
    loss: float | None = None
    exact_match: float | None = None
    k: int | None = None
    r: int | None = None
    parameters: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Start:
    """One way to initialise the router; its effect is measured before training."""

    name: str
    tokens: str = "all"  # of a row: all, prompt, answer
    rows: int = ROWS_PER_COMPONENT
    shrinkage: float = SHRINKAGE
    tuner: dict[str, Any] = field(default_factory=dict)


STARTS = (
    Start("default"),
    Start("prompt tokens only", tokens="prompt"),
    Start("answer tokens only", tokens="answer"),
    Start("4 rows a component", rows=4),
    Start("96 rows a component", rows=96),
    Start("shrinkage .001", shrinkage=0.001),
    Start("shrinkage 1", shrinkage=1.0),
    Start("shrinkage 10", shrinkage=10.0),
    Start("no bias", tuner={"router_bias": False}),
    Start("latent", tuner={"router_input": "latent"}),
    Start("random", tuner={"router_init": "random"}),
)

RUNS: dict[str, dict[str, Any]] = {
    "LoRA of equal size": {},
    "random (published)": {"router_init": "random"},
    "random, centred heads": {"router_init": "random", "head_init": "centred"},
    "components": {},
    "components, latent": {"router_input": "latent"},
    "components, centred heads": {"head_init": "centred"},
    "components, entropy .3": {"router_entropy": 0.3},
    "components, entropy .85": {"router_entropy": 0.85},
}


def run_router_init(
    data: Path,
    output: Path,
    seeds: int = 3,
    steps: int = 60,
    model: str = DEFAULT_MODEL,
    only: list[str] | None = None,
    on_event: OnEvent = lambda event: None,
    training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure every start and run for each seed; `output`/report.json is updated after each, and resumed from.

    Args:
        data: the rows; `HELDOUT` rows drawn by seed, or a tenth, are held out.
        seeds: number of seeds; each has its own split, clustering, initialisation and row order.
        only: names of runs to do; all by default.
        training: further settings of the recipe's training section.

    Raises:
        HydraError: the data or the model can't be used, or `only` names an unknown run.
    """
    unknown = sorted(set(only or ()) - set(RUNS))
    if unknown:
        raise ConfigError(f"router-init: there is no run {unknown[0]!r}. The runs are: {', '.join(RUNS)}.")
    output.mkdir(parents=True, exist_ok=True)
    path = output / "report.json"
    settings = {"data": str(data), "steps": steps, "model": model, "training": training or {}}
    cells: dict[str, Cell] = _saved_cells(path, settings)
    starts = _Starts()
    for kind, name, seed in _plan(seeds, only):
        key = f"{kind} | {name} | seed {seed}"
        if key in cells:
            continue
        on_event(NoteEvent(step=0, time=time.time(), message=key))
        recipe = _recipe(data, model, seed, steps, training or {})
        if kind == "start":
            cells[key] = starts.measure(recipe, next(start for start in STARTS if start.name == name))
        else:
            cells[key] = _measure_run(recipe, name, output / "adapters" / f"{name} {seed}", cells, seed, on_event)
        write_json(path, {"version": 1, "settings": settings, "cells": _values(cells)})
    return {"settings": settings, "cells": _values(cells), "table": _table(cells)}


def _values(cells: dict[str, Cell]) -> dict[str, object]:
    return {key: cell.values() for key, cell in cells.items()}


def _plan(seeds: int, only: list[str] | None) -> Iterator[tuple[str, str, int]]:
    for seed in range(seeds):
        yield from (("start", start.name, seed) for start in STARTS if not only)
    for seed in range(seeds):
        names = [name for name in RUNS if not only or name in only]
        # The LoRA comes last: its rank follows from the size of the others.
        yield from (("run", name, seed) for name in sorted(names, key=lambda name: name.startswith("LoRA")))


def _saved_cells(path: Path, settings: dict[str, object]) -> dict[str, Cell]:
    if not path.exists():
        return {}
    report = json.loads(path.read_text(encoding="utf-8"))
    if report["settings"] != settings:
        raise ConfigError(
            f"{path}: it was made with other settings ({report['settings']}). Choose another output folder."
        )
    return {key: Cell.model_validate(cell) for key, cell in report["cells"].items()}


def _recipe(data: Path, model: str, seed: int, steps: int, training: dict[str, Any]) -> Recipe:
    from hydralora.data.dataset import read_dataset

    rows = len(read_dataset(data).examples)
    return parse_recipe(
        {
            "model": model,
            "data": {"train": str(data), "eval_fraction": min(0.1, HELDOUT / rows)},
            "components": {"seed": seed},
            "training": {"max_steps": steps, "seed": seed, "eval_every": 0} | training,
        }
    )


def _with(recipe: Recipe, **changes: dict[str, Any] | str) -> Recipe:
    values = recipe.model_dump()
    for section, change in changes.items():
        values[section] = values[section] | change if isinstance(change, dict) else change
    return parse_recipe(values)


class _Starts:
    """Measures starts; those with the same adapter share a model, since each start overwrites the previous one."""

    def __init__(self) -> None:
        self._recipe: Recipe | None = None
        self._prepared: Prepared | None = None

    def measure(self, recipe: Recipe, start: Start) -> Cell:
        start_recipe = _with(recipe, tuner=start.tuner)
        if self._prepared is None or start_recipe != self._recipe:
            self._recipe, self._prepared = start_recipe, prepare(start_recipe, lambda stage: None)
        prepared = self._prepared
        if start_recipe.tuner.router_init == "components":
            rows = [{"input_ids": row.input_ids, "positions": _positions(row, start.tokens)} for row in prepared.train]
            entropy = start_recipe.tuner.router_entropy
            init_router(prepared.model, rows, prepared.train_labels, entropy, start.rows, start.shrinkage)
        pad = prepared.tokenizer.pad_token_id
        use = head_use(prepared.model, prepared.heldout, pad)
        return Cell(mutual_information=use.mutual_information(prepared.heldout_labels))


def _positions(row: Encoded, tokens: str) -> list[int]:
    included = {"all": (True, False), "answer": (True,), "prompt": (False,)}[tokens]
    return [i for i, label in enumerate(row.labels) if (label != IGNORED) in included]


def _measure_run(
    recipe: Recipe,
    name: str,
    folder: Path,
    cells: dict[str, Cell],
    seed: int,
    on_event: OnEvent,
) -> Cell:
    recipe = _equal_lora(recipe, cells, seed) if name.startswith("LoRA") else _with(recipe, tuner=RUNS[name])
    results = train(recipe, folder, Monitor(on_event))
    assert results.tuned  # it is never stopped
    assert results.parameters
    return Cell(
        mutual_information=results.mutual_information,
        head_cosine=results.head_cosine,
        loss=results.tuned.loss,
        exact_match=results.tuned.exact_match,
        k=results.k,
        r=recipe.tuner.r,
        parameters=results.parameters.total,
        seconds=sum(results.seconds.values()),
    )


def _equal_lora(recipe: Recipe, cells: dict[str, Cell], seed: int) -> Recipe:
    """A plain LoRA of the smallest rank that has at least as many parameters as the HydraLoRA of this seed."""
    key = f"run | components | seed {seed}"
    if key not in cells:
        raise ConfigError("router-init: LoRA's rank follows from the run 'components'. Include that run.")
    target, r = cells[key].parameters or 0, recipe.tuner.r
    prepared = prepare(_with(recipe, method="lora"), lambda stage: None)
    per_rank = sum(parameter.numel() for parameter in prepared.model.parameters() if parameter.requires_grad) / r
    rank = equal_rank(target, int(per_rank))
    return _with(recipe, method="lora", tuner={"r": rank, "lora_alpha": recipe.tuner.lora_alpha / r * rank})


def _table(cells: dict[str, Cell]) -> list[dict[str, Any]]:
    """One line for each start and run: mean and standard deviation of its measurements over the seeds."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for key, cell in cells.items():
        kind, name, _ = key.split(" | ")
        groups.setdefault((kind, name), []).append(cell)
    lines = []
    for (kind, name), group in groups.items():
        line: dict[str, Any] = {"kind": kind, "name": name, "seeds": len(group)}
        for measure in MEASURED:
            values = [value for cell in group if (value := getattr(cell, measure)) is not None]
            if values:
                line[measure] = {
                    "mean": statistics.fmean(values),
                    "sd": statistics.stdev(values) if len(values) > 1 else None,
                }
        lines.append(line)
    return lines


def router_init_table(report: dict[str, Any]) -> str:
    """The report as text: mean ± standard deviation over the seeds."""
    heads = {"mutual_information": "mutual inf.", "head_cosine": "head cosine", "loss": "loss", "exact_match": "exact"}
    lines = [f"{'':34}" + "".join(f"{heads[measure]:>16}" for measure in MEASURED)]
    for line in report["table"]:
        text = f"{line['kind']:6}{line['name']:28}"
        for measure in MEASURED:
            value = line.get(measure)
            spread = f" ± {value['sd']:.3f}" if value and value["sd"] is not None else ""
            text += f"{value['mean']:.3f}{spread}".rjust(16) if value else f"{'-':>16}"
        lines.append(text)
    return "\n".join(lines)
