"""The frame of every page: which runs and datasets there are, and how far the chosen ones have come."""

from dataclasses import replace
from typing import TypedDict

from hydralora.errors import HydraError
from hydralora.runs.run import Run
from hydralora.runs.state import RunState

from ..services import Services
from . import data
from .reading import counted
from .recipes import form_from_recipe
from .run_choices import dot

PATH = {"data": "Data", "components": "Components", "train": "Train", "explore": "Explore", "chat": "Chat"}
BESIDE = {"runs": "Runs", "lab": "Lab", "learn": "Learn"}


class RunEntry(TypedDict):
    """A run to choose; `state` is "active", "finished", "failed" or "" (stopped or interrupted)."""

    id: str
    name: str
    state: str


class BarValue(TypedDict):
    """What the bar shows: the runs and datasets to choose from, (id, name), and those chosen."""

    runs: list[RunEntry]
    run: str | None
    datasets: list[tuple[str, str]]
    dataset: str


class Step(TypedDict):
    """A page of the studio; those on the path come first, in the order of work."""

    page: str
    label: str
    state: str
    on_path: bool


def bar(services: Services, run_id: str | None, dataset_id: str) -> BarValue:
    """What the bar shows."""
    runs: list[RunEntry] = [
        {"id": run.id, "name": run.name, "state": dot(state.state)} for run, state in services.jobs.states().items()
    ]
    known = {entry["id"] for entry in runs}
    datasets = [(identity, label) for label, identity in data.choices(services)]
    return {"runs": runs, "run": run_id if run_id in known else None, "datasets": datasets, "dataset": dataset_id}


def steps(services: Services, run_id: str | None, dataset_id: str, k: int | None) -> list[Step]:
    """The pages, each with the state of its part of the work.

    Args:
        k: the number of components found for the dataset; None takes the run's.
    """
    run = _known(services, run_id)
    state = services.jobs.refresh(run) if run else None
    k = k or (state.k if state else None)
    states = {
        "data": _rows(services, dataset_id),
        "components": f"{k} found" if k else "",
        "train": _training(state) if state else "",
        "explore": "A and B" if run and run.has_adapter and run.recipe().tuning.has_matrices else "",
        "chat": "ready" if run and run.has_adapter else "base model only",
        "runs": counted(len(services.store.all()), "run"),
        "lab": "studies",
        "learn": "how it works",
    }
    return [
        {"page": page, "label": label, "state": states[page], "on_path": page in PATH}
        for page, label in (PATH | BESIDE).items()
    ]


def dataset_of(services: Services, run_id: str | None) -> str | None:
    """The id of a run's dataset; None if this workspace lacks it."""
    run = _known(services, run_id)
    try:
        return form_from_recipe(services, run.recipe(), []).dataset if run else None
    except HydraError:  # a damaged recipe is reported where the run is looked at
        return None


def run_on(services: Services, run_id: str | None, dataset_id: str) -> str | None:
    """This run if it was trained on the dataset, else the newest one that was; None if there is none."""
    if dataset_of(services, run_id) in (dataset_id, None) and run_id:
        return run_id
    return next((run.id for run in services.store.all() if dataset_of(services, run.id) == dataset_id), None)


def rename(services: Services, run_id: str, name: str) -> None:
    """Give a run another name; its note and tags stay. An empty name changes nothing."""
    run = services.run(run_id)
    name = " ".join(name.split())
    if name:
        run.write_label(replace(run.label(), name=name))


def _known(services: Services, run_id: str | None) -> Run | None:
    try:
        return services.run(run_id) if run_id else None
    except HydraError:  # deleted meanwhile
        return None


def _rows(services: Services, dataset_id: str) -> str:
    try:
        return counted(len(services.read_dataset(dataset_id).examples), "row")
    except HydraError:
        return ""


def _training(state: RunState) -> str:
    if state.state == "training":
        return f"{state.step} of {state.max_steps}"
    return f"at step {state.step}" if state.state in ("stopped", "interrupted") else state.state
