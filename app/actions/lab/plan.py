"""A study before it is begun: its settings, and what it takes on this machine."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hydralora.data.progress import describe_duration
from hydralora.errors import ConfigError
from hydralora.experiments.studies.cells import Settings
from hydralora.experiments.studies.cost import StudyPlan, cost_of
from hydralora.experiments.studies.rows import write_rows
from hydralora.experiments.studies.running import StudyFile, folder_of
from hydralora.experiments.studies.study import Study
from hydralora.recipe.settings import default_value

from ...services import Services
from ...services.background import Done, in_background
from ...services.cache import ResultKind
from ...services.components import digest
from ...services.processes import in_process
from ...services.reading import read_files
from ..reading import Cell, counted
from ..recipes import model_name, resolve_model
from .cards import find_study, states, study_files

COST = ResultKind[StudyPlan]("cost of a study", keep=32)
QUICK = {"seeds": 1, "steps": 20, "rows": 40}
WHOLE = {"seeds": 3, "steps": int(default_value("training.max_steps") or 0), "rows": 200}
COLUMNS = ["runs of", "number", "each takes"]


@dataclass(frozen=True)
class Size:
    """What a person chose. No arms: all."""

    seeds: float | None
    steps: float | None
    rows: float | None
    arms: Sequence[str]


@dataclass(frozen=True)
class Cost:
    """What a study would take: a sentence, the text of the button that starts it, and a table.

    Attributes:
        key: of the settings that it is about.
    """

    key: str
    sentence: str
    button: str
    lines: list[list[Cell]]


def arms(services: Services, name: str) -> list[str]:
    """The arms of a study; none where none is chosen.

    Raises:
        ConfigError: there is no such study.
    """
    return list(find_study(services, name).arms) if name else []


def begin(services: Services, name: str, dataset_id: str, model: str, size: Size, key: str) -> str:
    """Begin a study, or go on with the one that has the same settings; returns its id.

    Args:
        key: that of the cost which the person has read.

    Raises:
        HydraError: a setting is wrong, or it has changed since.
    """
    study, settings = _settings(services, name, dataset_id, model, size)
    if _key(name, settings) != key:
        raise ConfigError("The settings have just changed. Read what the study takes now, then start it.")
    return services.studies.begin(name, study, settings).id


def cost(services: Services, name: str, dataset_id: str, model: str, size: Size) -> Iterator[str | Cost]:
    """What the study would take: yields sentences, then the cost.

    Raises:
        HydraError: a setting is wrong, or the data can't be used.
    """
    yield "Reading the rows, to tell how long this takes …"
    study, settings = _settings(services, name, dataset_id, model, size)
    key = _key(name, settings)
    begun = folder_of(services.store, StudyFile(name=name, study=study, settings=settings)).name
    done = states(services).get(begun, Counter())["finished"]
    known = services.cache.get(COST, key, done)
    if known is None:
        arguments = services.store.workspace, name, study, settings
        for step in in_background(lambda on_progress: in_process(cost_of, *arguments, on_progress=on_progress)):
            if not isinstance(step, Done):
                if step.done:
                    yield f"Estimating run {step.done + 1} of {step.total}, to tell how long this takes …"
                continue
            known = step.value
            services.cache.remember(COST, key, done, compute=known.model_copy)
    if known:
        yield _cost(key, known, settings, services.datasets.get(dataset_id).name)


def _cost(key: str, plan: StudyPlan, settings: Settings, dataset: str) -> Cost:
    time = "" if plan.seconds is None or not plan.left else f", about {describe_duration(plan.seconds)}"
    one = " One seed is for a look: no difference can be told from it." if settings.seeds == 1 else ""
    lines: list[list[Cell]] = [
        [line.name, line.runs, describe_duration(line.seconds) if line.seconds else ""] for line in plan.lines
    ]
    button = f"Start {counted(plan.left, 'run')}{time}" if plan.left else "Show what was found"
    what = f"{model_name(settings.model)}, as chosen in Train, on {dataset}"
    return Cost(key, f"{what}: {plan.sentence()}{one}", button, lines)


def _key(name: str, settings: Settings) -> str:
    return digest(name, settings.model_dump(mode="json"))


def _settings(services: Services, name: str, dataset_id: str, model: str, size: Size) -> tuple[Study, Settings]:
    study = find_study(services, name)
    data, heldout = _files(services, dataset_id)
    chosen = [arm for arm in study.arms if arm in size.arms]
    try:
        settings = Settings(
            data=str(data),
            heldout=str(heldout) if heldout else None,
            model=resolve_model(services, model),
            seeds=int(size.seeds or 0),
            rows=int(size.rows or 0),
            steps=None if size.steps == WHOLE["steps"] else int(size.steps or 0),
            arms=() if len(chosen) == len(study.arms) else tuple(chosen),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{str(first['loc'][0]).capitalize()}: {first['msg']}.") from error
    return study, settings


def _files(services: Services, dataset_id: str) -> tuple[Path, Path | None]:
    """A dataset as a study reads it: one file, and one of held-out rows; with a mapping, a copy of its rows."""
    stored = services.datasets.get(dataset_id)
    if len(stored.files) == 1 and not stored.mapping_file:
        return stored.files[0], stored.heldout
    folder = study_files(services)
    data, heldout = folder / f"{stored.id}.jsonl", folder / f"{stored.id}-held-out.jsonl"
    if not data.exists():
        if stored.heldout:
            write_rows(heldout, list(read_files([stored.heldout], stored.mapping).examples))
        write_rows(data, list(services.read_dataset(dataset_id).examples))
    return data, heldout if stored.heldout else None
