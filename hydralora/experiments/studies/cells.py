"""A study's cells: the runs that it needs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from pydantic import Field

from hydralora.components.rows import components_of, read_rows
from hydralora.errors import ConfigError
from hydralora.experiments.studies.row_changes import changed_rows
from hydralora.experiments.studies.rows import RowFiles, row_files
from hydralora.experiments.studies.study import Changes, Study
from hydralora.files import file_hash
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.reading import parse_recipe, with_settings
from hydralora.recipe.settings import Recipe, default_value
from hydralora.recipe.without_effect import without_effect
from hydralora.runs.records import Record
from hydralora.training.sizes import adapter_size, equal_rank

QUIET = {  # nothing that only a person who watches a run needs
    "training.eval_every": 0,
    "training.sample_prompts": 0,
    "training.snapshots": 0,
}


class Settings(Record):
    """What a study leaves to the person who runs it.

    Attributes:
        data, heldout: files; without `heldout`, some of the rows of `data` are reported.
        rows: the most rows that are reported, and that settings are chosen by.
        steps: of each run; None: as the study or the default recipe says.
        arms: those that are run; empty: all.
        recipe: further changes of the recipe, by "section.name", such as training.max_length.
    """

    data: str
    heldout: str | None = None
    model: str = DEFAULT_MODEL
    seeds: int = Field(3, ge=1, le=100)
    rows: int = Field(200, ge=2)
    steps: int | None = Field(None, ge=1)
    arms: tuple[str, ...] = ()
    recipe: Changes = Field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        axes: the values of the study's axes.
        tried: the value of the setting that is being chosen; None for a run that is reported.
    """

    arm: str
    axes: Changes
    seed: int
    recipe: Recipe
    tried: float | str | None = None

    @property
    def point(self) -> str:
        """The values of the axes in words."""
        return ", ".join(f"{key.rpartition('.')[2].replace('_', ' ')} {value}" for key, value in self.axes.items())

    @property
    def place(self) -> tuple[str, str]:
        """The line of the study's table to which it belongs."""
        return self.arm, self.point

    @cached_property
    def key(self) -> str:
        """By which its run is found."""
        return recipe_key(self.recipe)

    @property
    def name(self) -> str:
        parts = [self.arm, self.point, "" if self.tried is None else f"trying {self.tried}", f"seed {self.seed}"]
        return ", ".join(filter(None, parts))


def recipe_key(recipe: Recipe) -> str:
    """Equal for recipes that say the same of rows with the same content, so that studies find each other's runs.

    A setting that has no effect, such as a LoRA's number of heads, makes no difference.

    Raises:
        OSError: a file of its rows can't be read.
    """
    content: Changes = {name: default_value(name) for name, _ in without_effect(recipe)}
    content["data.train"] = [_digest(file) for file in recipe.data.train_files]
    if recipe.data.eval:
        content["data.eval"] = _digest(recipe.data.eval)
    return json.dumps(with_settings(recipe.model_dump(mode="json"), content), sort_keys=True)


def _digest(file: str) -> str:
    known = Path(file).stat()
    return _content_digest(file, known.st_mtime_ns, known.st_size)


@lru_cache(maxsize=10_000)
def _content_digest(file: str, changed: int, size: int) -> str:
    """sha256 of a file's content, read once as long as it isn't changed."""
    return file_hash(file)


Chosen = Mapping[tuple[str, str], object]  # by arm and point, the value that was chosen for it


class Plan:
    """The cells of a study with its settings.

    Attributes:
        names: the arms that are run.
    """

    def __init__(self, study: Study, settings: Settings, folder: Path) -> None:
        """
        Args:
            folder: where the rows are written.

        Raises:
            ConfigError: an arm that is asked for doesn't exist.
        """
        self.study, self.settings, self._folder = study, settings, folder
        if unknown := sorted(set(settings.arms) - set(study.arms)):
            raise ConfigError(f"There is no arm {unknown[0]!r}. The arms are: {', '.join(study.arms)}.")
        needed = {study.reference, *(arm.size_of for name in settings.arms if (arm := study.arms[name]).size_of)}
        self.names = [name for name in study.arms if not settings.arms or name in settings.arms or name in needed]
        self._components: dict[str, int] = {}  # by the recipe's data and how they are found

    def tuning(self) -> list[Cell]:
        """The runs by which a setting is chosen for each arm; none where the study chooses none.

        Raises:
            HydraError: the data can't be used.
        """
        tune = self.study.tune
        if not tune:
            return []
        steps = max(1, round(tune.steps * self._steps))

        def recipe(arm: str, axes: Changes, value: float | str) -> Recipe:
            own = {"data.eval": str(self._files(0, axes).tune), "training.max_steps": steps, tune.setting: value}
            return self._recipe(arm, axes, 0, own)

        return [
            Cell(arm, axes, 0, recipe(arm, axes, value), value)
            for arm, axes in self._places()
            for value in self.study.arms[arm].values or tune.values
        ]

    def reported(self, chosen: Chosen) -> list[Cell]:
        """The runs that are reported, one seed after the other.

        Args:
            chosen: by `Cell.place`, the value that was chosen; a place without one is left out.

        Raises:
            HydraError: the data can't be used.
        """
        tune, cells = self.study.tune, []
        for seed in range(self.settings.seeds):
            for arm, axes in self._places():
                cell = Cell(arm, axes, seed, self._recipe(arm, axes, seed, {}))
                if not tune:
                    cells.append(cell)
                elif cell.place in chosen:
                    recipe = parse_recipe(with_settings(cell.recipe.model_dump(), {tune.setting: chosen[cell.place]}))
                    cells.append(replace(cell, recipe=recipe))
        return cells

    @property
    def _steps(self) -> int:
        point = self.study.points()[0]
        arm = self.study.recipe_of(self._base(0, point), self.study.reference, point)
        return arm.training.max_steps or 1

    def _places(self) -> Iterator[tuple[str, Changes]]:
        for axes in self.study.points():
            yield from ((name, axes) for name in self.names)

    def _files(self, seed: int, point: Changes) -> RowFiles:
        settings = self.settings
        files = row_files(self._folder, settings.data, settings.heldout, settings.rows, seed)
        return changed_rows(files, self.study.row_changes(point), settings.model, seed)

    def _base(self, seed: int, point: Changes) -> Changes:
        files, settings = self._files(seed, point), self.settings
        base = QUIET | {
            "training.measure_forgetting": "forgetting" in self.study.measures,
            "model": settings.model,
            "data.train": str(files.train),
            "data.eval": str(files.report),
            "training.seed": seed,
            "components.seed": seed,
        }
        return base | ({"training.max_steps": settings.steps} if settings.steps else {}) | settings.recipe

    def _recipe(self, arm: str, point: Changes, seed: int, own: Changes) -> Recipe:
        recipe = self.study.recipe_of(self._base(seed, point), arm, point)
        values = with_settings(recipe.model_dump(), own)
        if model_of := self.study.arms[arm].size_of:
            like = self.study.recipe_of(self._base(seed, point), model_of, point)
            values = with_settings(values, _rank_of_size(recipe, like, self._heads(like)))
        return parse_recipe(values, f"{self.study.title}, {arm}")

    def _heads(self, recipe: Recipe) -> int:
        """The heads of a recipe: as many as components are found in its rows, where it leaves that open."""
        if recipe.tuner.num_heads or not recipe.has_heads:
            return recipe.tuner.num_heads or 1
        of = f"{recipe.data} {recipe.components}"
        if of not in self._components:
            self._components[of] = components_of(recipe, read_rows(recipe).examples).k
        return self._components[of]


def _rank_of_size(recipe: Recipe, like: Recipe, heads: int) -> Changes:
    """The rank of a plain LoRA with at least as many parameters as another recipe's adapter; its scale stays."""
    wanted = adapter_size(like, heads).counts.total
    one = adapter_size(parse_recipe(with_settings(recipe.model_dump(), {"tuner.r": 1})), heads).counts.total
    rank = equal_rank(wanted, one)
    return {"tuner.r": rank, "tuner.lora_alpha": recipe.tuner.lora_alpha / recipe.tuner.r * rank}
