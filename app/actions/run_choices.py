"""The runs to choose from."""

from ..services import Services

Choice = tuple[str, str]  # (name, id)


def run_choices(services: Services) -> list[Choice]:
    """(name, id) of every run, newest first."""
    return [(run.name, run.id) for run in services.store.all()]


def newest_run(services: Services) -> str | None:
    """The active run, else the newest."""
    runs = [*services.jobs.active(), *services.store.all()]
    return runs[0].id if runs else None
