"""Output of commands: one JSON object or text on stdout, everything else on stderr."""

import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

import typer

from hydralora.data.progress import OnProgress
from hydralora.errors import HydraError, printable, system_message
from hydralora.files import to_json

if TYPE_CHECKING:
    from hydralora.analysis.breakdown import Part
    from hydralora.inference.benchmarks import TaskScores
    from hydralora.inference.on_files import FileScores
    from hydralora.runs.comparison import Comparison, RunMeasurements
    from hydralora.runs.events import Event, OnEvent
    from hydralora.runs.phases import RunProgress
    from hydralora.runs.scores import Score

P = ParamSpec("P")
PHASE_SECONDS = 30.0  # between lines of one phase


@dataclass(frozen=True)
class Output:
    """The output of a command.

    Attributes:
        values: the JSON object that --json prints.
        text: printed without --json; None prints the object, indented.
    """

    values: Mapping[str, object]
    text: str | None = None


def answering(function: Callable[P, Output]) -> Callable[P, None]:
    """A command that prints what `function` returns.

    A HydraError is printed as one line, with exit code 1; any other error keeps its traceback. With --json both are
    also printed as a JSON object on stdout.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        # PEFT uses transformers' old name of it, which users can't fix.
        warnings.filterwarnings("ignore", message=r"`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        try:
            output = function(*args, **kwargs)
            text = to_json({"version": 1} | dict(output.values)) if as_json else output.text
            print(json.dumps(output.values, indent=2) if text is None else printable(text))
        except HydraError as error:
            if as_json:
                _print_error(error.kind, str(error))
            say(f"{error.kind} error: {' '.join(str(error).split())}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            if as_json:
                _print_error("system", system_message(error))
            say(f"system error: {system_message(error)}")
            raise typer.Exit(1) from None
        except Exception as error:
            if not as_json:
                raise
            traceback.print_exc()
            _print_error("internal", f"{type(error).__name__}: {error}")
            raise typer.Exit(1) from None

    return run


def say(message: str) -> None:
    """Print a line on stderr."""
    typer.echo(printable(message), err=True)


@contextmanager
def progress(label: str) -> Iterator[OnProgress]:
    """A progress bar on stderr if that is a terminal; yields an `OnProgress`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


@dataclass(frozen=True)
class RunView:
    """Functions that show a run on stderr: each of its events, and how far it has come."""

    on_event: "OnEvent"
    on_progress: "Callable[[RunProgress], None]"


@contextmanager
def following() -> Iterator[RunView]:
    """Yield what shows a run on stderr: one bar of all phases with the newest figures if that is a terminal, else
    lines."""
    if not sys.stderr.isatty():
        yield RunView(_print_figures, _PhaseLines())
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from hydralora.runs.events import EvalEvent, NoteEvent, TrainEvent

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console) as bars:
        bar = bars.add_task("Starting", total=1.0)
        figures: list[str] = []

        def show_event(event: "Event") -> None:
            if isinstance(event, NoteEvent):
                figures.clear()
                for warning in event.warnings():
                    console.print(printable(warning), markup=False, highlight=False)
            elif isinstance(event, TrainEvent):
                figures[:] = event.figures()
            elif isinstance(event, EvalEvent):
                console.print(printable(event.line()), markup=False, highlight=False)

        def show_progress(progress: "RunProgress") -> None:
            bars.update(bar, completed=progress.fraction, description=", ".join((progress.sentence(), *figures)))

        yield RunView(show_event, show_progress)


class _PhaseLines:
    """Prints a line when a phase begins, and at most every `PHASE_SECONDS` while it lasts."""

    def __init__(self) -> None:
        self._phase, self._line, self._printed = 0, "", 0.0

    def __call__(self, progress: "RunProgress") -> None:
        line, now = progress.sentence(), time.monotonic()
        due = line != self._line and now - self._printed >= PHASE_SECONDS
        if progress.number != self._phase or due:
            self._phase, self._line, self._printed = progress.number, line, now
            say(f"{line}.")


def _print_figures(event: "Event") -> None:
    """Print an event as a line on stderr, unless it begins a stage: the line of its phase says so."""
    from hydralora.runs.events import NoteEvent

    if not (isinstance(event, NoteEvent) and event.stage):
        print_event(event)


def print_event(event: "Event") -> None:
    """Print a run's event as a line on stderr."""
    if line := event.line():
        say(line)


def comparison_text(compared: "Comparison") -> str:
    """Runs side by side: a line for each, the settings that differ, and the scores of each."""
    lines = [
        f"{'run':22}{'state':13}{'method':14}{'N':>3}{'r':>5}{'loss':>9}{'exact':>8}{'parameters':>13}{'seconds':>9}{'Wh':>9}"
    ]
    for row in compared.results:
        lines.append(
            f"{row.run:22}{row.state:13}{row.method:14}{_cell(row.heads, 3, '')}{_cell(row.rank, 5, '')}"
            f"{_cell(row.loss, 9, '.4f')}{_cell(row.exact_match, 8, '.1%')}"
            f"{_cell(row.parameters, 13, ',')}{_cell(row.seconds, 9, '.0f')}"
            f"{_cell(row.energy_kwh and 1000 * row.energy_kwh, 9, '.2f')}"
        )
    lines += [f"{name}: {', '.join(map(str, of.values()))}" for name, of in compared.differences.items()]
    for row in compared.results:
        lines += ["", *_measurements(row)]
    return "\n".join(lines)


def _measurements(row: "RunMeasurements") -> list[str]:
    """A run's scores on its held-out rows beside its base model's, and its energy by part."""
    lines = [
        f"{row.run}, base model -> run (-: not measured)",
        _scores_line("all rows", row.rows, (row.base_loss, row.loss), (row.base_exact_match, row.exact_match)),
    ]
    lines += [_pair_line(name, *pair) for name, pair in row.pairs().items()]
    if row.energy_parts_kwh:
        parts = ", ".join(f"{part.upper()} {kwh:.6f}" for part, kwh in row.energy_parts_kwh.items())
        lines.append(f"{'energy, kWh':24}{row.energy_kwh:.6f}: {parts}")
    return lines


def scores_text(scores: "FileScores") -> str:
    """Scores beside the base model's: of all rows, of each task and of each component."""
    base = scores.base
    lines = [_pair_line("all rows", base, scores)]
    for kind, before, after in (
        ("task", base.per_task, scores.per_task),
        ("component", base.per_component, scores.per_component),
    ):
        lines += [_pair_line(f"{kind} {group}", before.get(group), tuned) for group, tuned in after.items()]
    if scores.components_unknown:
        lines.append(f"components unknown: {scores.components_unknown}")
    return "\n".join(lines)


def tasks_text(tasks: "Mapping[str, TaskScores]") -> str:
    """A line for each metric of each benchmark, beside the base model's."""
    return "\n".join(
        f"{name}, {metric}: {scores.base.get(metric, float('nan')):.3f} -> {value:.3f}"
        for name, scores in tasks.items()
        for metric, value in scores.tuned.items()
    )


def parts_text(parts: Sequence["Part"], reading: str) -> str:
    """How far matrices are separated, a line for each kind and shape, and an interpretation."""
    lines = [f"{'':14}{'shape':>14}{'silhouette':>12}   {'95 % by chance':18}{'cosine':>8}"]
    for part in parts:
        measured = part.separation
        low, high = measured.chance
        shape = "{} x {}".format(*measured.shape)
        lines.append(
            f"{part.what:14}{shape:>14}{measured.silhouette:12.3f}   {f'{low:.3f} to {high:.3f}':18}"
            f"{_cell(measured.cosine, 8, '.3f')}"
        )
    return "\n".join([*lines, reading])


def _pair_line(name: str, base: "Score | None", tuned: "Score | None") -> str:
    pair = base, tuned
    rows = next((score.rows for score in (tuned, base) if score), None)
    losses = [score.loss if score else None for score in pair]
    matches = [score.exact_match if score else None for score in pair]
    return _scores_line(name, rows, losses, matches)


def _scores_line(name: str, rows: int | None, losses: Sequence[float | None], matches: Sequence[float | None]) -> str:
    loss, exact = (
        " -> ".join(_cell(value, 0, form) for value in values) for values, form in ((losses, ".4f"), (matches, ".1%"))
    )
    return f"{name:24}{_cell(rows, 6, '')} rows  loss {loss}  exact match {exact}"


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


def _print_error(kind: str, message: str) -> None:
    print(to_json({"version": 1, "error": {"kind": kind, "message": message}}))
