"""What commands print: one JSON object or text on stdout, everything else on stderr."""

import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import typer

from hydralora.data.progress import OnProgress
from hydralora.errors import HydraError
from hydralora.files import to_json
from hydralora.runs.events import event_line


def answering(function: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """A command that prints what `function` returns: with --json all of it, else `shown` in it, if any.

    An error that a user can mend is one line and exit code 1; any other keeps its traceback. With --json both are
    also a JSON object on stdout.
    """

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        as_json = kwargs.get("as_json", False)
        # PEFT asks transformers for it by its old name: nothing that a user can mend.
        warnings.filterwarnings("ignore", message=r"`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        try:
            result = function(*args, **kwargs)
            shown = result.pop("shown", None)
            text = to_json({"version": 1} | result) if as_json else shown
            print(json.dumps(result, indent=2) if text is None else text)
        except HydraError as error:
            if as_json:
                _print_error(error.kind, str(error))
            say(f"{error.kind} error: {' '.join(str(error).split())}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except Exception as error:
            if not as_json:
                raise
            traceback.print_exc()
            _print_error("internal", f"{type(error).__name__}: {error}")
            raise typer.Exit(1) from None

    return run


def say(message: str) -> None:
    """A line for a person, on stderr."""
    typer.echo(message, err=True)


@contextmanager
def progress(label: str) -> Iterator[OnProgress]:
    """A bar on stderr, where that is a terminal; yields a function of what is done, and of all there is to do."""
    bars: list[Any] = []

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            if not bars:
                bars.append(typer.progressbar(length=total, label=label, file=sys.stderr).__enter__())
            bars[0].update(done - bars[0].pos)

    try:
        yield show
    finally:
        for bar in bars:
            bar.render_finish()


@contextmanager
def following(max_steps: int | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a function that shows a run's events on stderr: as a bar with its newest figures where that is a terminal,
    else as lines."""
    if not sys.stderr.isatty():
        yield print_event
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}", markup=False), *columns, console=console) as bars:
        bar = bars.add_task("starting", total=max_steps)

        def show(event: dict[str, Any]) -> None:
            total = {"total": event["max_steps"]} if event.get("max_steps") else {}
            if "stage" in event:
                bars.update(bar, description=event["stage"], **total)
            elif event["kind"] == "train":
                told = f"training, loss {event['loss']:.4f}, {event['tokens_per_second']:.0f} tokens/s"
                bars.update(bar, completed=event["step"], description=told)
            elif event["kind"] == "eval":
                console.print(event_line(event), markup=False, highlight=False)
            elif total:
                bars.update(bar, **total)

        yield show


def print_event(event: dict[str, Any]) -> None:
    """A run's event as a line on stderr."""
    if line := event_line(event):
        say(line)


def run_line(state: dict[str, Any]) -> str:
    """A run's state as a line of a list."""
    steps = "" if state["step"] is None else f"step {state['step']} of {state['max_steps']}  "
    return f"{state['id']}  {state['state']:12} {steps}{state['message']}"


def comparison(compared: dict[str, Any]) -> str:
    """Runs side by side: a line for each, the settings that are not alike, and the measurements of each."""
    lines = [
        f"{'run':22}{'state':13}{'method':12}{'N':>3}{'r':>5}{'loss':>9}{'exact':>8}{'parameters':>13}{'seconds':>9}{'Wh':>9}"
    ]
    for row in compared["results"]:
        lines.append(
            f"{row['run']:22}{row['state']:13}{row['method']:12}{_cell(row['heads'], 3, '')}{row['rank']:5}"
            f"{_cell(row['loss'], 9, '.4f')}{_cell(row['exact_match'], 8, '.1%')}"
            f"{_cell(row['parameters'], 13, ',')}{_cell(row['seconds'], 9, '.0f')}"
            f"{_cell(row['energy_kwh'] and 1000 * row['energy_kwh'], 9, '.2f')}"
        )
    lines += [f"{name}: {', '.join(map(str, of.values()))}" for name, of in compared["differences"].items()]
    for row in compared["results"]:
        lines += ["", *_measurements(row)]
    return "\n".join(lines)


def _measurements(row: dict[str, Any]) -> list[str]:
    """A run's held-out rows, its base model beside it, and the energy by part."""
    base = row["base"] | {"loss": row["base_loss"], "exact_match": row["base_exact_match"]}
    lines = [f"{row['run']}, base model -> run (-: not measured)", *_score_lines(base, row)]
    if row["energy_parts_kwh"]:
        parts = ", ".join(f"{part.upper()} {kwh:.6f}" for part, kwh in row["energy_parts_kwh"].items())
        lines.append(f"{'energy, kWh':24}{row['energy_kwh']:.6f}: {parts}")
    return lines


def scores_text(scores: dict[str, Any]) -> str:
    """Measurements beside the base model's, of all rows, of each task and of each component."""
    lines = _score_lines(scores["base"], scores)
    if scores["components_unknown"]:
        lines.append(f"components unknown: {scores['components_unknown']}")
    return "\n".join(lines)


def parts_text(parts: list[dict[str, Any]], reading: str) -> str:
    """How far matrices lie apart, a line for each kind and shape; then what that means."""
    lines = [f"{'':14}{'shape':>14}{'silhouette':>12}   {'95 % by chance':18}{'cosine':>8}"]
    for part in parts:
        low, high = part["chance"]
        shape = "{} x {}".format(*part["shape"])
        lines.append(
            f"{part['what']:14}{shape:>14}{part['silhouette']:12.3f}   {f'{low:.3f} to {high:.3f}':18}"
            f"{_cell(part['cosine'], 8, '.3f')}"
        )
    return "\n".join([*lines, reading])


def _score_lines(base: dict[str, Any], tuned: dict[str, Any]) -> list[str]:
    lines = [_scores_line("all rows", base, tuned)]
    for key, name in (("per_task", "task"), ("per_component", "component")):
        for group in dict.fromkeys((*base[key], *tuned[key])):
            lines.append(_scores_line(f"{name} {group}", base[key].get(group, {}), tuned[key].get(group, {})))
    return lines


def _scores_line(name: str, base: dict[str, Any], tuned: dict[str, Any]) -> str:
    def change(key: str, form: str) -> str:
        return " -> ".join(_cell(scores.get(key), 0, form) for scores in (base, tuned))

    rows = _cell(tuned.get("rows", base.get("rows")), 6, "")
    return f"{name:24}{rows} rows  loss {change('loss', '.4f')}  exact match {change('exact_match', '.1%')}"


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


def _print_error(kind: str, message: str) -> None:
    print(to_json({"version": 1, "error": {"kind": kind, "message": message}}))
