"""The runs to choose from."""

from hydralora.errors import HydraError
from hydralora.experiments.sandbox import is_sandbox
from hydralora.experiments.studies import study_of
from hydralora.runs.run import Run
from hydralora.runs.state import StateName

from ..services import Services

Choice = tuple[str, str]  # (name, id)


def dot(state: StateName) -> str:
    """How a state is marked: "active", "finished", "failed" or "" (stopped or interrupted)."""
    return {"finished": "finished", "failed": "failed", "stopped": "", "interrupted": ""}.get(state, "active")


def run_choices(services: Services) -> list[Choice]:
    """(name, id) of every run, newest first."""
    return [(run.name, run.id) for run in services.store.all()]


def newest_run(services: Services) -> str | None:
    """The active run, else the newest; one to watch or of a study only where there is no other."""
    runs = [*services.jobs.active(), *services.store.all()]
    chosen = next((run for run in runs if not _is_aside(run)), next(iter(runs), None))
    return chosen.id if chosen else None


def _is_aside(run: Run) -> bool:
    """Whether nobody asked for this run alone: a study did, or it is there to be watched and has hardly learnt."""
    try:
        return study_of(run.label()) is not None or is_sandbox(run.recipe())
    except HydraError:  # a damaged run
        return False
