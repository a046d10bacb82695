"""From form values to a recipe, and which base models may be named."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hydralora.data.hub import PREFIX
from hydralora.data.store import StoredDataset
from hydralora.errors import ConfigError, HydraError
from hydralora.models.catalogue import CATALOGUE, DEFAULT_MODEL
from hydralora.recipe.reading import parse_components, parse_recipe, wrong_settings
from hydralora.recipe.settings import Recipe, default_value
from hydralora.runs.store import RunStore

from ..services import Services
from ..services.components import ComponentRequest

SettingValue = Any  # the value of a recipe's setting; pydantic checks it
FormSettings = dict[str, SettingValue]  # by "section.name"


def model_choices(services: Services) -> list[tuple[str, str]]:
    """(label, name) of the catalogue's models, and of the model folders in the workspace's models folder."""
    catalogue = [(model.id, model.id) for model in CATALOGUE]
    return catalogue + [(f"{name} (workspace)", name) for name in _workspace_models(services)]


def resolve_model(services: Services, name: str) -> str:
    """The model to load for a name from the form: a folder in the workspace, else a Hub id; no other path.

    Raises:
        ConfigError: the name is neither.
    """
    name = str(name or DEFAULT_MODEL)
    folders = _workspace_models(services)
    if name in folders:
        return str(folders[name])
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(
            f"Base model {name!r} is not a Hugging Face id. Choose from the list, or type owner/name."
        ) from error
    if Path(name).exists():  # a folder relative to where the server was started
        raise ConfigError(f"Base model {name!r} can't be used from here. Put its folder into the workspace's models/.")
    return name


def model_name(model: str) -> str:
    """A model's name on the page: its id, or the last part of its folder; never a path of this machine."""
    return Path(model).name if Path(model).is_absolute() else model.rpartition("/")[2]


def recipe_from_form(services: Services, dataset_id: str, model: str, values: FormSettings) -> Recipe:
    """A recipe from the form; `values` maps "section.name" to form values.

    Raises:
        ConfigError: a value is out of its range.
    """
    recipe = parse_recipe(_plain_values(services, dataset_id, model, values), "Settings")
    if recipe.start_from:
        services.run(recipe.start_from)  # raises for any other folder
    _name_components(services, dataset_id, recipe)
    return recipe


def wrong_in_form(services: Services, dataset_id: str, model: str, values: FormSettings) -> dict[str, str]:
    """Errors in the form's values by setting; empty if the model or the dataset is at fault."""
    try:
        if values.get("start_from"):
            services.run(values["start_from"])
    except HydraError as error:
        return {"start_from": str(error)}
    try:
        return wrong_settings(_plain_values(services, dataset_id, model, values))
    except HydraError:
        return {}


def _plain_values(services: Services, dataset_id: str, model: str, values: FormSettings) -> dict[str, SettingValue]:
    dataset = services.datasets.get(dataset_id)
    settings: dict[str, SettingValue] = {
        "model": resolve_model(services, model),
        "data": {
            "train": [str(file) for file in dataset.files],
            "eval": str(dataset.heldout) if dataset.heldout else None,
            "mapping": str(dataset.mapping_file) if dataset.mapping_file else None,
        },
    }
    for key, value in _with_sentence_model(services, values).items():
        section, _, name = key.rpartition(".")
        (settings.setdefault(section, {}) if section else settings)[name] = value
    return settings


class FormValues(NamedTuple):
    """Form values that describe a recipe.

    Attributes:
        dataset: None if this workspace lacks it.
        model: "" if the form can't name it.
        values: the values of the requested settings.
        lost: settings that are not their defaults and that neither the form nor its dataset can hold.
    """

    dataset: str | None
    model: str
    values: list[SettingValue]
    lost: list[str]


def form_from_recipe(services: Services, recipe: Recipe, keys: Sequence[str]) -> FormValues:
    """The values of a form with the settings `keys` for this recipe."""
    train = recipe.data.train_files
    names = sorted(Path(file).name for file in train)
    alike = [stored for stored in services.datasets.all() if sorted(file.name for file in stored.files) == names]
    alike.sort(
        key=lambda stored: [str(file) for file in stored.files] != train
    )  # these very files, else others so called
    dataset = next((stored for stored in alike if _file_name(stored.heldout) == _file_name(recipe.data.eval)), None)
    names_by_folder = {folder.resolve(): name for name, folder in _workspace_models(services).items()}
    model = names_by_folder.get(Path(recipe.model).resolve(), "" if Path(recipe.model).is_absolute() else recipe.model)
    settings = recipe.settings()
    values = [settings[key] for key in keys]
    return FormValues(dataset.id if dataset else None, model, values, _lost(services, recipe, dataset, keys))


def _lost(services: Services, recipe: Recipe, dataset: StoredDataset | None, keys: Sequence[str]) -> list[str]:
    covered = {*keys, "model", "data.train", "data.eval"}
    if not dataset or _file_name(dataset.mapping_file) == _file_name(recipe.data.mapping):
        covered.add("data.mapping")
    if dataset and services.datasets.names(dataset.id, ComponentRequest(recipe.components, recipe.model).key) == (
        recipe.components.names
    ):
        covered.add("components.names")
    return [key for key, value in recipe.settings().items() if key not in covered and value != default_value(key)]


def _file_name(file: Path | str | None) -> str | None:
    return Path(file).name if file else None


def to_copy(recipe: Recipe) -> str:
    """A recipe as YAML that works from any folder of this machine, since it names its files by full path. Files missing
    here, such as the rows of an imported run, are given by name. An exported recipe names no folders."""
    data = recipe.data
    files = [*data.train_files, data.eval, data.mapping]
    if not all(file is None or file.startswith(PREFIX) or Path(file).exists() for file in files):
        data = recipe.portable().data
    return recipe.model_copy(update={"data": data}).to_yaml()


def workspace_option(services: Services) -> str:
    """The option that makes a command use this app's workspace; empty for the default workspace."""
    workspace = services.store.workspace
    return "" if workspace == RunStore().workspace else f" --workspace {shlex.quote(str(workspace))}"


def component_settings(services: Services, model: str, values: FormSettings) -> ComponentRequest:
    """The component request in the form's `values`; other sections are ignored.

    Raises:
        ConfigError: a value is out of its range, or a model's name is wrong.
    """
    section = "components."
    values = _with_sentence_model(services, values)
    settings = {key.removeprefix(section): value for key, value in values.items() if key.startswith(section)}
    checked = parse_components(settings, "Components")
    return ComponentRequest(checked, resolve_model(services, model) if checked.features == "model" else DEFAULT_MODEL)


def _with_sentence_model(services: Services, values: FormSettings) -> FormSettings:
    """The values with the sentence model's folder or id; without it if it is not used."""
    key = "components.sentence_model"
    if values.get("components.features") != "sentence":
        return {name: value for name, value in values.items() if name != key}
    if not (values.get(key) or "").strip():
        raise ConfigError("No sentence model is named. Give the Hugging Face id of one.")
    return values | {key: resolve_model(services, values[key].strip())}


def _name_components(services: Services, dataset_id: str, recipe: Recipe) -> None:
    """Give the recipe the names that people gave to its components."""

    names = services.datasets.names(dataset_id, ComponentRequest(recipe.components, recipe.model).key)
    same_number = not recipe.has_heads or recipe.components.only or recipe.tuner.num_heads in (None, len(names or ()))
    if names and same_number:
        recipe.components.names = names


def _workspace_models(services: Services) -> dict[str, Path]:
    folder = services.store.workspace / "models"
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path for path in paths if (path / "config.json").exists()}
