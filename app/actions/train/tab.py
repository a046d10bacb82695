"""The Train tab: what the page shows of a run, from the run's events."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

from hydralora import figures
from hydralora.data.progress import describe_duration
from hydralora.runs.events import EvalEvent, Event, GatesEvent, NoteEvent, TrainEvent
from hydralora.runs.run import Run
from hydralora.runs.scores import Score
from hydralora.runs.state import RESUMABLE, RunState

from ...services import Services
from ...services.cache import ResultKind

LOG_BYTES = 2**20  # read from the end of the log
LOG_LINES = 500
IDLE_EVENTS = 3  # in a row, before a head is called idle
IDLE_SHARE = 0.1  # of 1 / N
SAMPLE_COLUMNS = ["held-out prompt", "expected", "before", "now"]
COLUMNS = ["rows of", "loss before", "loss after", "exact match before", "exact match after"]


@dataclass(frozen=True)
class Words:
    """The sentences on a run."""

    status: str
    usage: str = ""


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


@dataclass(frozen=True)
class Measured:
    """What was measured: losses by component, scores, sample answers, which head answers which component."""

    groups: str = ""
    table: list[list[str]] = field(default_factory=list)
    samples: list[list[str]] = field(default_factory=list)
    use: str = ""


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
        return TrainView(Words("No run yet. Check the settings and press Start training."), Buttons(""))
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
    return TrainView(
        Words(
            " ".join([_status(state, events, ahead) + _idle_heads(events) + _as_estimated(state), *_warnings(events)]),
            _usage(events) if state.is_active else "",
        ),
        Buttons(f"{run.id} {state.state}", state.is_active, state.state in RESUMABLE, ahead is not None),
        curves,
        replace(measured, use=figures.component_by_head(state.results.component_names(), use))
        if state.results and use
        else measured,
    )


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
    return curves, Measured(groups, score_table(events), sample_table(events))


def _status(state: RunState, events: Sequence[Event], ahead: int | None) -> str:
    name = state.state.capitalize()
    if not state.is_active:
        more = " Resume continues from its newest checkpoint." if state.state in RESUMABLE else ""
        return f"{name}: {state.message.rstrip('.')}.{more}"
    if ahead is not None:
        return f"Queued, {ahead} ahead." if ahead else "Queued, next."
    step, total = state.step, state.max_steps
    if state.state == "training" and step and total:
        return f"{name}: step {step} of {total}{_remaining(events, step, total)}."
    done, rows = state.progress or (0, 0)
    share = f", {done} of {rows} rows" if state.state == "evaluating" and done < rows else ""
    return f"{name}: {state.message}{share}."


def log(services: Services, run_id: str | None, search: str | None) -> str:
    """The last lines of a run's log that contain `search`."""
    if not run_id:
        return ""
    lines = services.run(run_id).log_lines(LOG_BYTES)
    matching = [line for line in lines if (search or "").lower() in line.lower()]
    return "\n".join(matching[-LOG_LINES:])


def _warnings(events: Sequence[Event]) -> list[str]:
    """What the user should know of the run's rows and its base model's template."""
    notes = [event for event in events if isinstance(event, NoteEvent) and event.rows]
    return [f"{text[0].upper()}{text[1:].rstrip('.')}." for text in notes[-1].warnings()] if notes else []


def _idle_heads(events: Sequence[Event]) -> str:
    """A sentence on the heads that get hardly any gate weight, by the last events with gates."""
    gates = [event.mean_gate for event in events if isinstance(event, GatesEvent)][-IDLE_EVENTS:]
    if len(gates) < IDLE_EVENTS:
        return ""
    count = len(gates[0])
    idle = [i + 1 for i in range(count) if all(means[i] < IDLE_SHARE / count for means in gates)]
    if not idle:
        return ""
    which = f"Head {idle[0]} gets" if len(idle) == 1 else f"Heads {', '.join(map(str, idle))} get"
    return f" {which} less than a tenth of an even share: idle."


def _as_estimated(state: RunState) -> str:
    """The time, memory and energy of a finished run, beside its estimate, if there is one."""
    results, estimated = state.results, state.estimate
    if not results or not results.total_seconds or not results.peak_memory_bytes or state.state != "finished":
        return ""
    before = (
        f"; estimated {describe_duration(estimated.seconds)} and {_gigabytes(estimated.memory_bytes)}"
        if estimated
        else ""
    )
    energy = (results.energy_kwh or {}).get("total")
    spent = f", and {1000 * energy:.2f} Wh" if energy else ""
    memory = f"at most {_gigabytes(results.peak_memory_bytes)} of memory"
    return f" It took {describe_duration(results.total_seconds)}, {memory}{spent}{before}."


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.1f} GB"


def _remaining(events: Sequence[Event], step: int, total: int) -> str:
    """The time of the remaining steps, at the speed since this process began to train."""
    starts = [i for i, event in enumerate(events) if isinstance(event, NoteEvent) and event.max_steps is not None]
    begun = starts[-1] if starts else 0
    times = [(event.step, event.time) for event in events[begun:] if isinstance(event, TrainEvent)]
    if len(times) < 2:
        return ""
    (first, began), (last, now) = times[0], times[-1]
    return f", about {describe_duration((now - began) / max(last - first, 1) * (total - step))} of training left"


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


def sample_table(events: Sequence[Event]) -> list[list[str]]:
    """Answers to a few held-out prompts, before training and at the newest evaluation."""
    answered = [event.answers for event in events if isinstance(event, EvalEvent) and event.answers]
    if not answered:
        return []
    newest = [sample.answer for sample in answered[-1]] if len(answered) > 1 else [""] * len(answered[0])
    return [
        [first.prompt, first.expected, first.answer, last] for first, last in zip(answered[0], newest, strict=False)
    ]


def _usage(events: Sequence[Event]) -> str:
    """What the run's process uses, and what its machine has free, by the newest event that reports it."""
    usages = (event.usage for event in reversed(events) if isinstance(event, TrainEvent))
    usage = next(filter(None, usages), None)
    if not usage:
        return ""
    taken = f"It uses {usage.cpu_percent / 100:.1f} CPU cores and {_gigabytes(usage.memory_bytes)} of memory; "
    if usage.gpu_memory_bytes is not None and usage.gpu_free_bytes is not None:
        taken += f"{_gigabytes(usage.gpu_memory_bytes)} of GPU memory, with {_gigabytes(usage.gpu_free_bytes)} free; "
    free, disk = _gigabytes(usage.memory_free_bytes), _gigabytes(usage.disk_free_bytes)
    return f"{taken}the machine has {free} of memory and {disk} of disk free."
