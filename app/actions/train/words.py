"""The Train page in sentences: what a run is doing, what came of it, and what the user should know."""

from collections.abc import Sequence

from hydralora.data.progress import describe_duration
from hydralora.runs.events import Event, GatesEvent, NoteEvent, TrainEvent
from hydralora.runs.phases import RunProgress
from hydralora.runs.results import RunResults
from hydralora.runs.scores import Scores
from hydralora.runs.state import RESUMABLE, RunState

from ..reading import counted

IDLE_EVENTS = 3  # in a row, before a head is called idle
IDLE_SHARE = 0.1  # of 1 / N
LEADS_BY = 0.05  # by which the largest mean gate must exceed 1 / N, so that a head leads on a component
STARTED = "Its router was started from the components."
NAMED = 6  # components in the verdict
LONGEST_NAME = 40  # characters


def status(state: RunState, progress: RunProgress, ahead: int | None) -> str:
    """What a run is doing, or how it ended and what Resume does.

    Args:
        ahead: runs that start before it; None if it doesn't wait.
    """
    told = happened(state, progress, ahead)
    if ahead is not None or state.state not in RESUMABLE:
        return told
    return f"{told} Resume {'continues from its newest checkpoint' if state.step else 'begins it again'}."


def happened(state: RunState, progress: RunProgress, ahead: int | None) -> str:
    """What a run is doing, or how it ended; arguments as of `status`."""
    if ahead is not None:
        return f"Queued, {ahead} ahead." if ahead else "Queued, next."
    if state.is_active:
        return _doing(state, progress)
    if state.state == "finished" and state.results and state.results.tuned:
        return verdict(state.results)
    message = state.message.rstrip(".")
    return f"{message}." if state.state == "stopped" else f"{state.state.capitalize()}: {message}."


def _doing(state: RunState, progress: RunProgress) -> str:
    if state.state == "stopping":
        return "Stopping."
    name = f"{progress.name[0].upper()}{progress.name[1:]}"
    if state.state == "training" and progress.total:
        return f"{name}, step {progress.done} of {progress.total:,}."
    return f"{name}, {progress.share}." if progress.share else f"{name}."


def verdict(results: RunResults) -> str:
    """What training changed on the held-out rows, and which head took which component."""
    before, after = results.base, results.tuned
    begun = f"Finished after {counted(results.step, 'step')}"
    if not before or not after:
        return f"{begun}."
    rows = counted(after.rows, "held-out row")
    return f"{begun}: {_matches(before, after)}, {_losses(before, after)}, on {rows}. {heads(results)}".strip()


def _matches(before: Scores, after: Scores) -> str:
    first, last = f"{before.exact_match:.1%}", f"{after.exact_match:.1%}"
    return f"exact match stayed at {last}" if first == last else f"exact match went from {first} to {last}"


def _losses(before: Scores, after: Scores) -> str:
    return f"loss from {before.loss_text} to {after.loss_text}"


def heads(results: RunResults) -> str:
    """Which head leads on which component, if one does; "" for an adapter without heads."""
    gates = results.component_by_head
    names = results.component_names()
    if not gates or not any(gates):
        return ""
    count = max(map(len, gates))
    if count == 1:
        return ""
    taken: dict[int, list[str]] = {}
    for name, means in zip(names, gates, strict=False):
        if means and max(means) >= 1 / count + LEADS_BY:
            taken.setdefault(means.index(max(means)), []).append(_short(name))
    if not taken:
        return "No head leads on any component."
    if len(names) > NAMED:
        led = sum(map(len, taken.values()))
        return f"{len(taken)} heads lead on {led} of {len(names)} components."
    parts = [f"head {head + 1} took {' and '.join(taken[head])}" for head in sorted(taken)]
    sentence = f"{', '.join(parts)}."
    free = len([means for means in gates if means]) - sum(map(len, taken.values()))
    rest = f" No head leads on the other {'component' if free == 1 else f'{free} components'}." if free else ""
    return f"H{sentence[1:]}{rest}"


def _short(name: str) -> str:
    number, _, text = name.partition(": ")
    text = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
    return f"component {number} ({text})" if text else f"component {number}"


def details(state: RunState, events: Sequence[Event], from_components: bool = False) -> str:
    """What else the user should know of a run: its cost, idle heads, warnings about its rows and its template.

    Args:
        from_components: whether its router was started from the components.
    """
    started = STARTED if from_components and state.results else ""
    parts = (_as_estimated(state), started, _idle_heads(events), *_warnings(events))
    return " ".join(text for text in parts if text)


def _warnings(events: Sequence[Event]) -> list[str]:
    """What the user should know of the run's rows, its base model's template, and the steps that it lost."""
    notes = [event for event in events if isinstance(event, NoteEvent)]
    of_rows = [note for note in notes if note.rows][-1:]
    texts = [text for note in [*of_rows, *(note for note in notes if note.lost)] for text in note.warnings()]
    return [f"{text[0].upper()}{text[1:].rstrip('.')}." for text in texts]


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
    return f"{which} less than a tenth of an even share: idle."


def _as_estimated(state: RunState) -> str:
    """The time, memory and energy of a finished run, beside its estimate, if there is one."""
    results, estimated = state.results, state.estimate
    if not results or not results.total_seconds or not results.peak_memory_bytes or state.state != "finished":
        return ""
    before = (
        f"; estimated {describe_duration(estimated.seconds)} and {gigabytes(estimated.memory_bytes)}"
        if estimated
        else ""
    )
    energy = (results.energy_kwh or {}).get("total")
    spent = f", and {1000 * energy:.2f} Wh" if energy else ""
    memory = f"at most {gigabytes(results.peak_memory_bytes)} of memory"
    return f"It took {describe_duration(results.total_seconds)}, {memory}{spent}{before}."


def usage(events: Sequence[Event]) -> str:
    """What the run's process uses, and what its machine has free, by the newest event that reports it."""
    usages = (event.usage for event in reversed(events) if isinstance(event, TrainEvent))
    used = next(filter(None, usages), None)
    if not used:
        return ""
    taken = f"It uses {used.cpu_percent / 100:.1f} CPU cores and {gigabytes(used.memory_bytes)} of memory; "
    if used.gpu_memory_bytes is not None and used.gpu_free_bytes is not None:
        taken += f"{gigabytes(used.gpu_memory_bytes)} of GPU memory, with {gigabytes(used.gpu_free_bytes)} free; "
    free, disk = gigabytes(used.memory_free_bytes), gigabytes(used.disk_free_bytes)
    return f"{taken}{free} of memory and {disk} of disk are free."


def gigabytes(size: float) -> str:
    """Bytes as gigabytes: "1.5 GB"."""
    return f"{size / 2**30:.1f} GB"
