"""Recipes from YAML files and plain values, with errors of one sentence."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hydralora.errors import ConfigError, found, one_line
from hydralora.files import UnreadableError, parse_yaml, read_yaml
from hydralora.files.cache import ParsedFiles
from hydralora.recipe.settings import RENAMED, VERSION, ComponentSettings, Recipe

MOST_NAMED = 8  # wrong settings in one message
_YAML = ParsedFiles(read_yaml)


def parse_recipe(values: Any, where: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        ConfigError: naming every wrong key, what was found, and what is allowed.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: it holds no settings. Write at least the keys model and data.train.")
    version = values.get("version", VERSION)
    if version != VERSION:
        raise ConfigError(f"{where}: version is {found(version)}, this program reads {VERSION}. Update hydralora.")
    try:
        return Recipe.model_validate(_renamed({key: value for key, value in values.items() if key != "version"}, where))
    except ValidationError as error:
        raise ConfigError(f"{where}: {validation_message(error)}") from error


def _renamed(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The values with the names that settings have now.

    Raises:
        ConfigError: a setting is given by its old name and its new one.
    """
    values = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for old, new in RENAMED.items():
        section, _, name = old.rpartition(".")
        inner = values.get(section)
        if not isinstance(inner, dict) or name not in inner:
            continue
        _, _, new_name = new.rpartition(".")
        if new_name in inner:
            raise ConfigError(f"{where}: {old} is the old name of {new}, and both are set. Leave {old} out.")
        inner[new_name] = inner.pop(name)
    return values


def wrong_settings(values: Any) -> dict[str, str]:
    """What is wrong with a recipe's plain values, by setting ("training.batch_size"); a section's name, or "", where
    several settings conflict."""
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        return {".".join(map(str, item["loc"][:2])): _describe(item).partition(": ")[2] for item in error.errors()}
    return {}


def parse_components(values: dict[str, Any], where: str = "components") -> ComponentSettings:
    """The section `components` alone, from plain values.

    Raises:
        ConfigError: naming every wrong key, what was found, and what is allowed.
    """
    try:
        return ComponentSettings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {validation_message(error)}") from error


def read_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """A recipe from a YAML file, with its paths unchanged.

    Raises:
        ConfigError: the file can't be read, or a setting is wrong.
    """
    try:
        values = deepcopy(_YAML.get(path))
    except UnreadableError as error:
        raise ConfigError(f"{path.name}: it can't be read as YAML ({error}).") from error
    if isinstance(values, dict):
        values = _renamed(values, path.name)  # now, so that an override by either name changes the same setting
    if overrides:
        values = with_settings(values, parse_overrides(overrides))
    return parse_recipe(values, path.name)


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """A recipe from a YAML file, with `a.b=value` overrides; paths are relative to the file's folder.

    Raises:
        ConfigError: the file can't be read, or a setting is wrong.
    """
    path = Path(path)
    recipe = read_recipe(path, overrides)
    for name in ("train", "eval", "mapping"):
        value = getattr(recipe.data, name)
        if isinstance(value, list):
            setattr(recipe.data, name, [_beside(path, file) for file in value])
        elif value is not None:
            setattr(recipe.data, name, _beside(path, value))
    for name in ("fsdp_config", "deepspeed"):
        file = getattr(recipe.launch, name)
        if isinstance(file, str):
            setattr(recipe.launch, name, str((path.parent / file).resolve()))
    for section, key in ((recipe, "model"), (recipe, "start_from"), (recipe.components, "sentence_model")):
        name = getattr(section, key)
        if name and (path.parent / name).is_dir():  # else it is a model's id, or a run's
            setattr(section, key, str((path.parent / name).resolve()))
    return recipe


def _beside(recipe: Path, file: str) -> str:
    """A path in a recipe, relative to its folder; a dataset of the Hub stays unchanged."""
    return file if file.startswith("hub:") else str((recipe.parent / file).resolve())


def parse_overrides(overrides: list[str]) -> dict[str, object]:
    """The values of "section.name=value" by their settings' names.

    Raises:
        ConfigError: one is not written like that.
    """
    changes = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"override {found(override)}: write it as section.name=value, such as training.max_steps=50."
            )
        try:
            changes[RENAMED.get(key, key)] = parse_yaml(text)
        except UnreadableError as error:
            raise ConfigError(f"override {found(override)}: the value is not YAML ({error}).") from error
    return changes


def with_settings(values: object, changes: dict[str, object]) -> dict[str, object]:
    """A recipe's plain values with other settings, each by "section.name"."""
    values = dict(values) if isinstance(values, dict) else {}
    for key, value in changes.items():
        target: dict[str, object] = values
        *sections, name = key.split(".")
        for section in sections:
            there = target.get(section)
            inner: dict[str, object] = dict(there) if isinstance(there, dict) else {}
            target[section] = inner
            target = inner
        target[name] = value
    return values


def validation_message(error: ValidationError) -> str:
    """The wrong settings in one line, each with its name, what is allowed, and what was found; of many, the first."""
    errors = error.errors()
    more = f"; and {len(errors) - MOST_NAMED} more" if len(errors) > MOST_NAMED else ""
    return "; ".join(_describe(item) for item in errors[:MOST_NAMED]) + more


def _describe(item: Any) -> str:
    key = one_line(".".join(str(part) for part in item["loc"])) or "settings"
    if item["type"] == "extra_forbidden":
        return f"{key} is not a setting; check its spelling"
    if item["type"] == "missing":
        return f"{key} is missing; add it"
    actual = "" if isinstance(item["input"], (dict, BaseModel)) else f" (found {found(item['input'])})"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}{actual}"
