"""The form of a run: what it would train, how long that takes, and starting it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hydralora.data.progress import describe_duration
from hydralora.models.device import describe_device
from hydralora.recipe.methods import METHOD_NAMES
from hydralora.recipe.presets import PRESETS
from hydralora.recipe.reading import read_recipe
from hydralora.recipe.settings import Recipe, default_value
from hydralora.runs.state import TrialEstimate
from hydralora.training.estimate import run_seconds
from hydralora.training.trial import PLACES, estimate_text, run_trial

from ...services import Services
from ...services.background import Done, in_background
from ...services.cache import ResultKind
from ...services.components import ComponentRequest
from ...services.processes import in_process
from ..reading import counted
from ..recipes import FormSettings, FormValues, SettingValue, form_from_recipe, recipe_from_form, to_copy

ESTIMATE = ResultKind[TrialEstimate]("estimate")
SECONDS = ResultKind[float | None]("seconds of a run", keep=64)
HEADS = "tuner.num_heads"
PRESET_KEYS = list(dict.fromkeys(key for settings in PRESETS.values() for key in settings))


class Change(NamedTuple):
    """A setting that a preset would change."""

    key: str
    before: SettingValue
    after: SettingValue


def device_line() -> str:
    """The device that a run would use."""
    device = describe_device()
    return f"{device.name}, {device.free_bytes / 2**30:.1f} GB free."


def duration(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
    """About how long a run with these settings takes on a CPU; "" on another device.

    Raises:
        HydraError: a value is out of its range, or the data can't be used.
    """
    if describe_device().kind != "cpu":
        return ""
    recipe = recipe_from_form(services, dataset_id, model, values)
    seconds = services.cache.remember(SECONDS, recipe.to_yaml(), compute=lambda: run_seconds(recipe))
    return f"About {describe_duration(seconds)}." if seconds else "The time is known once the base model is downloaded."


def heads_line(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
    """Where the number of heads comes from.

    Raises:
        HydraError: a value is out of its range.
    """
    recipe = recipe_from_form(services, dataset_id, model, values)
    if not recipe.has_heads:
        return f"{recipe.tuning.name} has no heads."
    request = ComponentRequest(recipe.components, recipe.model)
    if not services.components.are_found(dataset_id, request):
        return "The components are found when the run starts." if recipe.tuner.num_heads is None else ""
    k = services.components.found(dataset_id, request).k
    found = f"The rows have {counted(k, 'component')}"
    if recipe.tuner.num_heads is None:
        return f"{found}: a head for each."
    return f"{found}." if recipe.tuner.num_heads == k else f"{found}, and you ask for {recipe.tuner.num_heads} heads."


def plan(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
    """What would be trained, in a sentence.

    Raises:
        HydraError: a value is out of its range.
    """
    recipe = recipe_from_form(services, dataset_id, model, values)
    tuner, only = recipe.tuner, recipe.components.only
    if recipe.method == "lora":
        what = f"A plain LoRA of rank {tuner.r}"
    elif not recipe.has_heads:
        what = f"{recipe.tuning.name}{_size(recipe)}"
    elif tuner.num_heads:
        count = f"{tuner.num_heads} head{'s' if tuner.num_heads > 1 else ''}"
        what = f"{METHOD_NAMES[recipe.method]}: {count} of rank {tuner.r}"
    else:
        what = f"{METHOD_NAMES[recipe.method]}: a head of rank {tuner.r} for each component"
    rows = f"component {only} alone" if only else "all rows"
    begun = f", trained on from {recipe.start_from}" if recipe.start_from else ""
    return f"{what}{begun}, on {rows}{_name(services, dataset_id, recipe)}."


def _size(recipe: Recipe) -> str:
    """What sets the size of a method without heads."""
    if recipe.tuning.has_virtual_tokens:
        return f" with {counted(recipe.tuner.virtual_tokens, 'virtual token')}"
    return f" of rank {recipe.tuner.r}" if recipe.tuning.has_rank else ""


def recipe_text(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
    """The form as a recipe file."""
    return to_copy(recipe_from_form(services, dataset_id, model, values))


def preset(name: str, current: FormSettings) -> FormSettings:
    """A preset's values of the settings that presets are about. A number of heads that is set already stays."""
    wanted = {key: PRESETS[name].get(key, default_value(key)) for key in PRESET_KEYS}
    return wanted | ({HEADS: current[HEADS]} if current.get(HEADS) else {})


def preset_changes(name: str, current: FormSettings) -> list[Change]:
    """What a preset would change in the form."""
    wanted = preset(name, current)
    return [Change(key, current[key], value) for key, value in wanted.items() if current[key] != value]


def opened_recipe(services: Services, file: str, keys: Sequence[str]) -> FormValues:
    """The form values in a recipe file, for the settings `keys`. The files that it names are not read.

    Raises:
        ConfigError: it can't be read, or a setting is wrong.
    """
    return form_from_recipe(services, read_recipe(Path(file or "")), keys)


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
            yield f"{estimate_text(step.value)}, measured on {len(PLACES) + 1} steps."
        else:
            trying = f"Measuring: step {step.done} of {step.total}."
            yield trying if step.done else "Measuring: reading the rows and loading the model."


def start(services: Services, dataset_id: str, model: str, values: FormSettings) -> str:
    """Start a run; returns its id. An estimate for the same settings is saved with it."""
    recipe = recipe_from_form(services, dataset_id, model, values)
    run = services.jobs.start(recipe)
    if estimated := services.cache.get(ESTIMATE, recipe.to_yaml()):
        run.update(estimate=estimated)
    return run.id
