"""The form of a run: what it would train, how long that takes, and starting it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydralora.data.progress import describe_duration
from hydralora.models.device import describe_device
from hydralora.recipe.presets import PRESETS
from hydralora.recipe.reading import read_recipe
from hydralora.recipe.settings import METHOD_NAMES, Recipe, default_value
from hydralora.runs.state import TrialEstimate
from hydralora.training.estimate import run_seconds
from hydralora.training.trial import PLACES, estimate_text, run_trial

from ...services import Services
from ...services.background import Done, in_background
from ...services.cache import ResultKind
from ...services.components import ComponentRequest
from ...services.processes import in_process
from ..recipes import FormSettings, FormValues, form_from_recipe, recipe_from_form, to_copy

ESTIMATE = ResultKind[TrialEstimate]("estimate")


def device_line(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
    """The device, and on a CPU how long the run will take."""
    device = describe_device()
    free = f"{device.free_bytes / 2**30:.1f} GB free"
    if device.kind != "cpu":
        return f"{device.name}, {free}."
    seconds = run_seconds(recipe_from_form(services, dataset_id, model, values))
    about = f"about {describe_duration(seconds)}" if seconds else "the time is known once the base model is downloaded"
    return f"{device.name}, {free}: {about}."


def plan(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
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


def recipe_text(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
    """The form as a recipe file."""
    return to_copy(recipe_from_form(services, dataset_id, model, values))


def preset(name: str, keys: Sequence[str]) -> FormSettings:
    """A preset's values for all of `keys`: its own, else the defaults."""
    return {key: PRESETS[name].get(key, default_value(key)) for key in keys}


def opened_recipe(services: Services, file: str, keys: Sequence[str]) -> FormValues:
    """The form values in a recipe file, for the settings `keys`. The files that it names are not read.

    Raises:
        ConfigError: it can't be read, or a setting is wrong.
    """
    return form_from_recipe(services, read_recipe(Path(file)), keys)


def _name(services: Services, dataset_id: str, recipe: Recipe) -> str:
    """The name of the one component, if it is known."""
    request, only = ComponentRequest(recipe.components, recipe.model), recipe.components.only
    if not only or not services.components.are_found(dataset_id, request):
        return ""
    names = [component.name for component in services.components.named(dataset_id, request)]
    return f" ({names[only - 1]})" if only <= len(names) else ""


def estimate(services: Services, dataset_id: str, model: str, values: FormSettings) -> Iterator[str]:
    """Try a few steps of the run in a separate process: yields sentences, the last one with the estimate."""
    recipe = recipe_from_form(services, dataset_id, model, values)
    key, resolved = recipe.to_yaml(), services.store.resolved(recipe)
    for step in in_background(
        lambda on_progress: services.cache.remember(
            ESTIMATE, key, compute=lambda: in_process(run_trial, resolved, on_progress=on_progress)
        )
    ):
        if isinstance(step, Done):
            yield f"{estimate_text(step.value)}, by a trial of {len(PLACES) + 1} steps."
        else:
            trying = f"Trying: step {step.done} of {step.total}."
            yield trying if step.done else "Trying: reading the rows and loading the model."


def start(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
    """Start a run; returns its id. An estimate for the same settings is saved with it."""
    recipe = recipe_from_form(services, dataset_id, model, values)
    run = services.jobs.start(recipe)
    if estimated := services.cache.get(ESTIMATE, recipe.to_yaml()):
        run.update(estimate=estimated)
    return run.id
