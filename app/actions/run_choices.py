"""The runs to choose from."""

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
    """The active run, else the newest."""
    runs = [*services.jobs.active(), *services.store.all()]
    return runs[0].id if runs else None
