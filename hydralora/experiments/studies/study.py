"""A study as it is declared: a question, arms that answer it, and what the paper found."""

from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from hydralora.errors import ConfigError
from hydralora.experiments.studies.measures import MEASURES, Measure
from hydralora.experiments.studies.row_changes import PREFIX, RowChanges
from hydralora.files import UnreadableError, read_yaml
from hydralora.recipe.reading import parse_recipe, validation_message, with_settings
from hydralora.recipe.section import Section
from hydralora.recipe.settings import Recipe

DECLARED = Path(__file__).with_name("declared")
Changes = dict[str, object]  # of a recipe's settings, by "section.name"
Values = Annotated[list[object], Field(min_length=1)]
Tried = Annotated[tuple[float | str, ...], Field(min_length=1)]
BASE = "base model"  # the name of the line in the report that no arm has
MOST_RECIPES = 1000  # arms at all points of the axes


class Arm(Section):
    """One of the ways that a study compares."""

    settings: Changes = Field(default_factory=dict, description="What it changes in the study's recipe.")
    size_of: str | None = Field(
        None, description="An arm with as many parameters: a LoRA's rank is the smallest that has at least as many."
    )
    values: Tried | None = Field(None, description="Values to choose from for this arm, in place of the study's.")


class Tuning(Section):
    """A setting that is chosen for each arm, on rows that are neither trained on nor reported."""

    setting: str = "training.learning_rate"
    values: Tried = (2e-4, 6e-4, 2e-3, 6e-3, 2e-2)
    steps: float = Field(0.5, gt=0, le=1, description="Share of the steps for which each value is tried.")


class Paper(Section):
    """What the paper found."""

    source: str
    measure: str
    differs: str = Field(description="How our study differs from the paper's.")
    values: dict[str, float] = Field(description="By arm.")


class Study(Section):
    """A question, and the runs that answer it: every arm, at every combination of the axes, for every seed.

    Attributes:
        reference: the arm that the others are compared with.
        recipe: what it changes in the default recipe, for all arms.
        axes: settings that take several values; some may change the rows (`RowChanges`).
        tune: None: the recipe's settings are used as they are.
        judged: the measure that the verdict is about.
    """

    version: Literal[1] = 1
    title: str = Field(min_length=1, max_length=80)
    question: str = Field(min_length=1, max_length=300)
    reference: str
    recipe: Changes = Field(default_factory=dict)
    arms: dict[str, Arm] = Field(min_length=2)
    axes: dict[str, Values] = Field(default_factory=dict)
    tune: Tuning | None = None
    judged: Measure = "loss"
    measures: tuple[Measure, ...] = ("loss", "exact_match", "parameters", "seconds")
    paper: Paper | None = None

    @model_validator(mode="after")
    def _arms_exist(self) -> "Study":
        named = {"reference": [self.reference], "size_of": [arm.size_of for arm in self.arms.values() if arm.size_of]}
        named["paper.values"] = list(self.paper.values) if self.paper else []
        if rows := [name for name, arm in self.arms.items() if any(key.startswith(PREFIX) for key in arm.settings)]:
            raise ValueError(f"the arm {rows[0]!r} changes the rows, which are the same for all arms. Use axes")
        if BASE in self.arms:
            raise ValueError(f"no arm can be called {BASE!r}, which every report has a line for. Name it otherwise")
        for place, names in named.items():
            for name in names:
                if name not in self.arms and (place, name) != ("paper.values", BASE):
                    known = ", ".join(self.arms)
                    raise ValueError(f"{place} names {name!r}, which is not an arm. The arms are: {known}")
        if untuned := [name for name, arm in self.arms.items() if arm.values and not self.tune]:
            raise ValueError(f"the arm {untuned[0]!r} has values, but the study chooses none. Add tune: {{}}")
        if chained := [name for name, arm in self.arms.items() if arm.size_of and self.arms[arm.size_of].size_of]:
            raise ValueError(f"the arm {chained[0]!r} has the size of an arm that has itself the size of another")
        if (recipes := len(self.arms) * prod(map(len, self.axes.values()))) > MOST_RECIPES:
            raise ValueError(f"arms and axes make {recipes} different runs, of at most {MOST_RECIPES}")
        if MEASURES[self.judged].better is None:
            raise ValueError(f"judged: of {self.judged}, neither more nor less is better")
        return self

    def with_axes(self, axes: dict[str, list[object]]) -> "Study":
        """The study with other values of some axes, or more of them.

        Raises:
            ConfigError: a setting or a value is wrong.
        """
        try:
            study = Study.model_validate(self.model_dump() | {"axes": self.axes | axes})
        except ValidationError as error:
            raise ConfigError(f"{self.title}: {validation_message(error)}") from error
        study.check()
        return study

    def check(self) -> None:
        """Find a wrong setting now, not after the first hour.

        Raises:
            ConfigError: an arm's recipe can't be, at some point of the axes.
        """
        for point in self.points():
            self.row_changes(point)
            for name in self.arms:
                self.recipe_of({"model": "default", "data.train": "rows.jsonl"}, name, point)

    def points(self) -> list[Changes]:
        """Every combination of the axes' values; one without any where there are no axes."""
        return [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]

    def recipe_of(self, base: Changes, arm: str, point: Changes) -> Recipe:
        """An arm's recipe at a point of the axes.

        Args:
            base: settings that the study leaves open: model, data, seed, steps.

        Raises:
            ConfigError: a setting is wrong.
        """
        changes = base | self.recipe | self.arms[arm].settings | point
        own = {key: value for key, value in changes.items() if not key.startswith(PREFIX)}
        return parse_recipe(with_settings({}, own), f"{self.title}, arm {arm}")

    def row_changes(self, point: Changes) -> RowChanges:
        """What is changed in the rows at a point of the axes.

        Raises:
            ConfigError: a setting is wrong.
        """
        changes = {
            key.removeprefix(PREFIX): value for key, value in (self.recipe | point).items() if key.startswith(PREFIX)
        }
        try:
            return RowChanges.model_validate(changes)
        except ValidationError as error:
            raise ConfigError(f"{self.title}, {PREFIX}{validation_message(error)}") from error


def read_study(path: Path) -> Study:
    """A study from a YAML file.

    Raises:
        ConfigError: the file can't be read, or what is wrong in it.
    """
    try:
        values = read_yaml(path)
    except UnreadableError as error:
        raise ConfigError(f"{path.name}: it can't be read as YAML ({error}).") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name}: it holds no study. Write at least title, question, reference and arms.")
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {validation_message(error)}") from error
    study.check()
    return study


@cache
def declared_studies() -> dict[str, Path]:
    """The files of the studies that ship, by name, in their order."""
    return {path.stem: path for path in sorted(DECLARED.glob("*.yaml"))}


def find_study(name: str) -> tuple[str, Study]:
    """A study that ships, by its name, or a user's own, by its file; with its name.

    Raises:
        ConfigError: there is none, or its file is wrong.
    """
    if path := declared_studies().get(name):
        return name, read_study(path)
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"There is no study {name!r}. Name a file, or one of: {', '.join(declared_studies())}.")
    return path.stem, read_study(path)
