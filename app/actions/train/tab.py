"""The Train page: what it shows of a run, from the run's events."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TypedDict

from hydralora import figures
from hydralora.runs.events import EvalEvent, Event, GatesEvent, TrainEvent
from hydralora.runs.phases import RunProgress, run_progress
from hydralora.runs.run import Run
from hydralora.runs.scores import Score
from hydralora.runs.state import RESUMABLE, RunState

from ...services import Services
from ...services.cache import ResultKind
from . import words

LOG_BYTES = 2**20  # read from the end of the log
LOG_LINES = 500
COLUMNS = ["rows of", "loss before", "loss after", "exact match before", "exact match after"]
NO_RUN = "No run yet. Check the settings above and press Start training."


class Bar(TypedDict):
    """The bar of a run's progress: 0 to 1, and its texts."""

    fraction: float
    place: str
    share: str
    left: str


@dataclass(frozen=True)
class Words:
    """The sentences on a run, and its bar; None for a run that waits or has ended.

    Attributes:
        happened: the status without what Resume does, for a page that has no such button.
    """

    status: str
    details: str = ""
    usage: str = ""
    bar: Bar | None = None
    happened: str = ""


@dataclass(frozen=True)
class Buttons:
    """The actions that a run allows; `phase` changes with them."""

    phase: str
    active: bool = False
    resumable: bool = False
    waiting: bool = False


@dataclass(frozen=True)
class Curves:
    """A run over its steps, as figures: loss, load of the heads, learning rate and speed."""

    loss: str = ""
    load: str = ""
    curves: str = ""


class Sample(TypedDict):
    """Answers to a held-out prompt; `now` is "" until a second evaluation."""

    prompt: str
    expected: str
    before: str
    now: str


@dataclass(frozen=True)
class Measured:
    """What was measured: losses by component, scores, sample answers, which head answers which component."""

    groups: str = ""
    table: list[list[str]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    use: str = ""
    whole: bool = False  # whether the tuned model was evaluated


@dataclass(frozen=True)
class TrainView:
    """What the page shows of a run, in parts that change together."""

    words: Words
    buttons: Buttons
    curves: Curves = Curves()
    measured: Measured = field(default_factory=Measured)

    @cached_property
    def marks(self) -> dict[str, str]:
        """A hash of each part: only parts that changed are sent."""
        parts = (part.name for part in fields(self))
        return {part: hashlib.sha256(repr(getattr(self, part)).encode()).hexdigest() for part in parts}


VIEW = ResultKind[TrainView]("run")
DRAWN = ResultKind[tuple[Curves, Measured]]("run drawn")


def stop(services: Services, run_id: str, measure: bool = False) -> None:
    services.jobs.stop(services.run(run_id), measure)


def swap(services: Services, run_id: str, by: int) -> None:
    """Move a waiting run by places in the queue, -1 for sooner."""
    services.jobs.swap(services.run(run_id), by)


def resume(services: Services, run_id: str) -> None:
    """Resume a run from its newest checkpoint."""
    services.jobs.resume(services.run(run_id))


def view(services: Services, run_id: str | None) -> TrainView:
    """What to show of a run."""
    if not run_id:
        return TrainView(Words(NO_RUN), Buttons(""))
    run = services.run(run_id)
    state = services.jobs.refresh(run)
    ahead = services.jobs.ahead(run) if services.jobs.is_waiting(run) else None
    # However many pages show the run, its figures are drawn once.
    key = run_id, state.state, state.step, state.heartbeat, ahead
    return services.cache.remember(VIEW, *key, compute=lambda: _draw(services, run, state, ahead))


def _draw(services: Services, run: Run, state: RunState, ahead: int | None) -> TrainView:
    events = services.events(run)
    newest = (len(events), events[-1].time) if events else (0, 0.0)  # equal for the same events, which may be rewound
    curves, measured = services.cache.remember(DRAWN, run.id, newest, compute=lambda: _drawn(events))
    use = state.results and state.results.component_by_head
    progress = run_progress(state, run.recipe(), state.heartbeat)
    return TrainView(
        Words(
            words.status(state, progress, ahead),
            words.details(state, events, run.recipe().starts_from_components),
            words.usage(events) if state.is_active else "",
            _bar(progress) if state.is_active and ahead is None else None,
            words.happened(state, progress, ahead),
        ),
        Buttons(f"{run.id} {state.state}", state.is_active, state.state in RESUMABLE, ahead is not None),
        curves,
        replace(measured, use=figures.component_by_head(state.results.component_names(), use))
        if state.results and use
        else measured,
    )


def _bar(progress: RunProgress) -> Bar:
    return {
        "fraction": round(progress.fraction, 4),
        "place": f"P{progress.place[1:]}",
        "share": progress.share,
        "left": progress.left,
    }


def _drawn(events: Sequence[Event]) -> tuple[Curves, Measured]:
    """The figures and tables of the events; a new step alone does not change them."""
    trained = any(isinstance(event, TrainEvent) for event in events)
    evaluated = any(isinstance(event, EvalEvent) for event in events)
    routed = any(isinstance(event, GatesEvent) for event in events)
    curves = Curves(
        loss=figures.loss(events) if trained or evaluated else "",
        load=figures.head_load(events) if routed else "",
        curves=figures.training_curves(events) if trained else "",
    )
    groups = figures.group_losses(events) if evaluated else ""
    whole = any(isinstance(event, EvalEvent) and event.split == "after" for event in events)
    return curves, Measured(groups, score_table(events), sample_answers(events), whole=whole)


def log(services: Services, run_id: str | None, search: str | None) -> str:
    """The last lines of a run's log that contain `search`."""
    if not run_id:
        return ""
    lines = services.run(run_id).log_lines(LOG_BYTES)
    matching = [line for line in lines if (search or "").lower() in line.lower()]
    return "\n".join(matching[-LOG_LINES:])


def score_table(events: Sequence[Event]) -> list[list[str]]:
    """Before and after, for each task, or each component where rows name no task, and for all rows."""
    scores = {event.split: event.scores for event in events if isinstance(event, EvalEvent)}
    before, after = scores.get("before"), scores.get("after")
    if not before:
        return []
    by_task = bool(before.per_task)
    known = (after.per_task if by_task else after.per_component) if after else {}
    rows: list[tuple[str, Score, Score | None]] = [
        (group if by_task else f"component {int(group) + 1}", score, known.get(group))
        for group, score in before.groups().items()
    ]
    rows.append(("all rows", before, after))
    return [
        [
            name,
            first.loss_text,
            second.loss_text if second else "",
            f"{first.exact_match:.1%}",
            f"{second.exact_match:.1%}" if second else "",
        ]
        for name, first, second in rows
    ]


def sample_answers(events: Sequence[Event]) -> list[Sample]:
    """Answers to a few held-out prompts, before training and at the newest evaluation."""
    answered = [event.answers for event in events if isinstance(event, EvalEvent) and event.answers]
    if not answered:
        return []
    newest = [sample.answer for sample in answered[-1]] if len(answered) > 1 else [""] * len(answered[0])
    return [
        {"prompt": first.prompt, "expected": first.expected, "before": first.answer, "now": last}
        for first, last in zip(answered[0], newest, strict=False)
    ]
