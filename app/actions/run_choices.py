"""The runs to choose from."""

from hydralora.errors import HydraError
from hydralora.recipe.settings import METHOD_NAMES
from hydralora.runs.run import Run

from ..services import Services
from .recipes import model_name

Choice = tuple[str, str]  # (label, id)


def run_choices(services: Services) -> list[Choice]:
    """(label, id) of every run, newest first."""
    return [(_label(run), run.id) for run in services.store.all()]


def newest_run(services: Services) -> str | None:
    """The active run, else the newest."""
    runs = [*services.jobs.active(), *services.store.all()]
    return runs[0].id if runs else None


def _label(run: Run) -> str:
    try:
        recipe = run.recipe()
    except HydraError:  # from a newer version, or damaged: it must not hide the others
        return run.id
    heads = f", N = {recipe.tuner.num_heads or run.state().k or 'auto'}" if recipe.has_heads else ""
    method = f"{METHOD_NAMES[recipe.method]}{heads}"
    return f"{run.id}: {model_name(recipe.model)}, {method}, r = {recipe.tuner.r}"
