"""The Train tab: from form values to a run, and from a run to what is shown of it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hydralora import figures
from hydralora.errors import HydraError
from hydralora.models.device import describe_device
from hydralora.recipe.presets import PRESETS
from hydralora.recipe.reading import read_recipe
from hydralora.recipe.settings import METHOD_NAMES, Recipe, default_value
from hydralora.runs.jobs import RESUMABLE
from hydralora.runs.run import ACTIVE, Run
from hydralora.training.estimate import describe_duration, run_seconds
from hydralora.training.run import TRAINING_STARTS
from hydralora.training.trial import PLACES, dry_run, estimate_text

from ...services import Asked, Services
from ...services.background import Done, in_background
from ...services.processes import in_process
from .. import recipes
from ..recipes import model_name, recipe_from_form

LOG_BYTES = 2**20  # of the log's end are looked at
LOG_LINES = 500
IDLE_EVENTS = 3  # in a row, before a head is called idle
IDLE_SHARE = 0.1  # of 1 / N
SAMPLE_COLUMNS = ["held-out prompt", "expected", "before", "now"]
COLUMNS = ["rows of", "loss before", "loss after", "exact match before", "exact match after"]


@dataclass(frozen=True)
class TrainView:
    """What the page shows of a run; `phase` is equal as long as the same can be asked of it."""

    phase: str
    status: str
    active: bool
    resumable: bool
    loss: str = ""
    load: str = ""
    curves: str = ""
    groups: str = ""
    use: str = ""
    table: list[list[str]] = field(default_factory=list)
    samples: list[list[str]] = field(default_factory=list)
    usage: str = ""
    waiting: bool = False

    @cached_property
    def marks(self) -> dict[str, str]:
        """A mark for each of `PARTS`, equal for what is equal: only what changed is sent."""
        return {part: _digest([getattr(self, name) for name in names]) for part, names in PARTS.items()}


PARTS = {  # of the page, that change together
    "words": ("status", "usage"),
    "buttons": ("phase", "active", "resumable", "waiting"),
    "curves": ("loss", "load", "curves"),
    "measured": ("groups", "table", "samples", "use"),
}


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


def device_line(services: Services, dataset_id: str, model: str, values: dict[str, Any]) -> str:
    """The device, and on a CPU how long the run will take."""
    device = describe_device()
    free = f"{device['free_bytes'] / 2**30:.1f} GB free"
    if device["kind"] != "cpu":
        return f"{device['name']}, {free}."
    seconds = run_seconds(recipe_from_form(services, dataset_id, model, values))
    about = f"about {describe_duration(seconds)}" if seconds else "its time is known once the base model is fetched"
    return f"{device['name']}, {free}: {about}."


def plan(services: Services, dataset_id: str, model: str, values: dict[str, Any]) -> str:
    """What would be trained, in a sentence.

    Raises:
        HydraError: a value is out of its range.
    """
    recipe = recipe_from_form(services, dataset_id, model, values)
    tuner, only = recipe.tuner, recipe.components.only
    if not recipe.has_heads:
        what = f"A plain LoRA of rank {tuner.r}"
    elif tuner.num_heads:
        count = f"{tuner.num_heads} head{'s' if tuner.num_heads > 1 else ''}"
        what = f"{METHOD_NAMES[recipe.method]}: {count} of rank {tuner.r}"
    else:
        what = f"{METHOD_NAMES[recipe.method]}: a head of rank {tuner.r} for each component"
    rows = f"component {only} alone" if only else "all rows"
    begun = f", trained on from {recipe.start_from}" if recipe.start_from else ""
    return f"{what}{begun}, on {rows}{_name(services, dataset_id, recipe)}."


def recipe_text(services: Services, dataset_id: str, model: str, values: dict[str, Any]) -> str:
    """The form as a recipe file."""
    return recipes.to_copy(recipe_from_form(services, dataset_id, model, values))


def preset(name: str, keys: Sequence[str]) -> dict[str, Any]:
    """The values that a preset gives to all of `keys`: its own, else the defaults."""
    return {key: PRESETS[name].get(key, default_value(key)) for key in keys}


def opened_recipe(services: Services, file: str, keys: Sequence[str]) -> recipes.FormValues:
    """What a recipe file puts into the form, which holds `keys`. The files that it names are not read.

    Raises:
        ConfigError: it can't be read, or a setting is wrong.
    """
    return recipes.form_from_recipe(services, read_recipe(Path(file)), keys)


def _name(services: Services, dataset_id: str, recipe: Recipe) -> str:
    """What the one component is called, where it is known."""
    asked, only = Asked(recipe.components, recipe.model), recipe.components.only
    if not only or not services.has_clusters(dataset_id, asked):
        return ""
    names = [component.name for component in services.components(dataset_id, asked)]
    return f" ({names[only - 1]})" if only <= len(names) else ""


def estimate(services: Services, dataset_id: str, model: str, values: dict[str, Any]) -> Iterator[str]:
    """Try a few steps of the run in a process of its own; sentences, the last with what the whole will take."""
    recipe = recipe_from_form(services, dataset_id, model, values)
    key, tried = ("estimate", recipe.to_yaml()), services.store.resolved(recipe)
    for step in in_background(
        lambda on_progress: services.remember(key, lambda: in_process(dry_run, tried, on_progress=on_progress))
    ):
        if isinstance(step, Done):
            yield f"{estimate_text(step.value)}, by a trial of {len(PLACES) + 1} steps."
        else:
            done, total = step
            yield f"Trying: step {done} of {total}." if done else "Trying: reading the rows and loading the model."


def start(services: Services, dataset_id: str, model: str, values: dict[str, Any]) -> str:
    """Start a run; returns its id. What was estimated for these very settings is kept with it."""
    recipe = recipe_from_form(services, dataset_id, model, values)
    run = services.jobs.start(recipe)
    key = ("estimate", recipe.to_yaml())
    if services.remembers(key):
        run.update(estimate=services.remember(key, dict))
    return run.id


def stop(services: Services, run_id: str, measure: bool = False) -> None:
    services.jobs.stop(services.run(run_id), measure)


def swap(services: Services, run_id: str, by: int) -> None:
    """Let a waiting run change places, -1 for sooner."""
    services.jobs.swap(services.run(run_id), by)


def resume(services: Services, run_id: str) -> None:
    """Go on with a run from its newest checkpoint."""
    services.jobs.resume(services.run(run_id))


def run_choices(services: Services) -> list[tuple[str, str]]:
    """(label, id) of every run, newest first."""
    return [(_run_label(run), run.id) for run in services.store.all()]


def newest_run(services: Services) -> str | None:
    """The run at work, else the newest."""
    runs = [*services.jobs.active(), *services.store.all()]
    return runs[0].id if runs else None


def view(services: Services, run_id: str | None) -> TrainView:
    """What to show of a run."""
    if not run_id:
        return TrainView("", "No run yet. Check the settings and press Start training.", False, False)
    run = services.run(run_id)
    state = services.jobs.refresh(run)
    ahead = services.jobs.ahead(run) if services.jobs.is_waiting(run) else None
    signature = f"{run_id} {state['state']} {state['step']} {state['heartbeat']} {ahead}"
    # However many pages look at the run, its figures are drawn once.
    return services.remember(("view", signature), lambda: _draw(services, run, state, ahead))


def _draw(services: Services, run: Run, state: dict[str, Any], ahead: int | None) -> TrainView:
    events = services.events(run)
    results = state.get("results") or {}
    use = results.get("component_by_head")
    names = [f"{c['id'] + 1}: {c['name']}" for c in results.get("components", [])]
    return TrainView(
        phase=f"{run.id} {state['state']}",
        status=_status(state, events, ahead) + _idle_heads(events) + _as_estimated(state),
        active=state["state"] in ACTIVE,
        resumable=state["state"] in RESUMABLE,
        **services.remember(("curves", run.id, _place(events)), lambda: _curves(events)),
        use=figures.component_by_head(names, use) if use else "",
        usage=_usage(events) if state["state"] in ACTIVE else "",
        waiting=ahead is not None,
    )


def _place(events: list[dict[str, Any]]) -> tuple:
    """Equal for the same events of a run, which may be written anew when it is resumed."""
    return len(events), events[-1]["time"] if events else None


def _curves(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What is drawn of the events; a step alone changes none of it."""
    return {
        "loss": figures.loss(events) if _has(events, "train", "eval") else "",
        "load": figures.head_load(events) if _has(events, "gates") else "",
        "curves": figures.training_curves(events) if _has(events, "train") else "",
        "groups": figures.group_losses(events) if _has(events, "eval") else "",
        "table": score_table(events),
        "samples": sample_table(events),
    }


def _has(events: list[dict[str, Any]], *kinds: str) -> bool:
    return any(event["kind"] in kinds for event in events)


def _run_label(run: Run) -> str:
    try:
        recipe = run.recipe()
    except HydraError:  # from a newer version, or damaged: it must not hide the others
        return run.id
    heads = f", N = {recipe.tuner.num_heads or run.state().get('k', 'auto')}" if recipe.has_heads else ""
    method = f"{METHOD_NAMES[recipe.method]}{heads}"
    return f"{run.id}: {model_name(recipe.model)}, {method}, r = {recipe.tuner.r}"


def _status(state: dict[str, Any], events: list[dict[str, Any]], ahead: int | None) -> str:
    name = state["state"].capitalize()
    if state["state"] not in ACTIVE:
        more = " Resume goes on from its newest checkpoint." if state["state"] in RESUMABLE else ""
        return f"{name}: {state['message'].rstrip('.')}.{more}"
    if ahead is not None:
        return f"Queued, {ahead} ahead." if ahead else "Queued, next."
    step, total = state["step"], state["max_steps"]
    if state["state"] == "training" and step and total:
        return f"{name}: step {step} of {total}{_remaining(events, step, total)}."
    done = state.get("progress")
    share = f", {done[0]} of {done[1]} rows" if done and state["state"] == "evaluating" and done[0] < done[1] else ""
    return f"{name}: {state['message']}{share}."


def log(services: Services, run_id: str | None, search: str | None) -> str:
    """The last lines of a run's log, of those that hold `search`."""
    if not run_id:
        return ""
    lines = services.run(run_id).log_lines(LOG_BYTES)
    found = [line for line in lines if (search or "").lower() in line.lower()]
    return "\n".join(found[-LOG_LINES:])


def _idle_heads(events: list[dict[str, Any]]) -> str:
    """Says which heads get next to nothing, by the last events with gates."""
    gates = [event["mean_gate"] for event in events if event["kind"] == "gates"][-IDLE_EVENTS:]
    if len(gates) < IDLE_EVENTS:
        return ""
    count = len(gates[0])
    idle = [i + 1 for i in range(count) if all(means[i] < IDLE_SHARE / count for means in gates)]
    if not idle:
        return ""
    which = f"Head {idle[0]} gets" if len(idle) == 1 else f"Heads {', '.join(map(str, idle))} get"
    return f" {which} less than a tenth of an even share: idle."


def _as_estimated(state: dict[str, Any]) -> str:
    """What a finished run took, beside what was estimated, if it was."""
    results, told = state.get("results") or {}, state.get("estimate")
    seconds, memory = results.get("total_seconds"), results.get("peak_memory_bytes")
    if not seconds or not memory or state["state"] != "finished":
        return ""
    before = f"; estimated {describe_duration(told['seconds'])} and {_gigabytes(told['memory_bytes'])}" if told else ""
    energy = (results.get("energy_kwh") or {}).get("total")
    spent = f", and {1000 * energy:.2f} Wh" if energy else ""
    return f" It took {describe_duration(seconds)}, at most {_gigabytes(memory)} of memory{spent}{before}."


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.1f} GB"


def _remaining(events: list[dict[str, Any]], step: int, total: int) -> str:
    begun = max((i for i, event in enumerate(events) if event.get("message") == TRAINING_STARTS), default=0)
    times = [(event["step"], event["time"]) for event in events[begun:] if event["kind"] == "train"]
    if len(times) < 2:
        return ""
    (first, began), (last, now) = times[0], times[-1]
    return f", about {describe_duration((now - began) / max(last - first, 1) * (total - step))} of training left"


def score_table(events: list[dict[str, Any]]) -> list[list[str]]:
    """Before and after, for each task, or each component where rows name no task, and for all rows."""
    scores = {event["split"]: event for event in events if event["kind"] == "eval"}
    before, after = scores.get("before"), scores.get("after")
    if not before:
        return []
    key = "per_task" if before["per_task"] else "per_component"
    rows = []
    for group in [*before.get(key, ()), None]:
        first = before if group is None else before[key][group]
        second = after if after is None or group is None else after[key].get(group)
        rows.append(
            [
                "all rows" if group is None else group if key == "per_task" else f"component {int(group) + 1}",
                _loss(first),
                _loss(second) if second else "",
                f"{first['exact_match']:.1%}",
                f"{second['exact_match']:.1%}" if second else "",
            ]
        )
    return rows


def sample_table(events: list[dict[str, Any]]) -> list[list[str]]:
    """What the model said to a few held-out prompts before it learnt, and at its newest evaluation."""
    told = [event["answers"] for event in events if event.get("answers")]
    if not told:
        return []
    now = [one["answer"] for one in told[-1]] if len(told) > 1 else [""] * len(told[0])
    return [
        [first["prompt"], first["expected"], first["answer"], last] for first, last in zip(told[0], now, strict=False)
    ]


def _usage(events: list[dict[str, Any]]) -> str:
    """What the run's process takes, and what its machine has left, by the newest event that tells."""
    found = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    if not found:
        return ""
    told = f"It takes {found['cpu_percent'] / 100:.1f} CPU cores and {_gigabytes(found['memory_bytes'])} of memory; "
    if "gpu_memory_bytes" in found:
        taken, left = _gigabytes(found["gpu_memory_bytes"]), _gigabytes(found["gpu_free_bytes"])
        told += f"{taken} of the GPU's, with {left} free; "
    free, disk = _gigabytes(found["memory_free_bytes"]), _gigabytes(found["disk_free_bytes"])
    return f"{told}the machine has {free} of memory and {disk} of disk left."


def _loss(scores: dict[str, Any]) -> str:
    return "not a number" if scores["loss"] is None else f"{scores['loss']:.3f}"
