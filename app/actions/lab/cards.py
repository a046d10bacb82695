"""The studies to choose from: those that ship, a user's own, and those that were begun in this workspace."""

import re
from collections import Counter
from pathlib import Path
from typing import TypedDict

from hydralora.errors import ConfigError
from hydralora.experiments.studies import study_of
from hydralora.experiments.studies.measures import MEASURES
from hydralora.experiments.studies.running import RunningStudy
from hydralora.experiments.studies.shipped import ShippedStudy, shipped_studies
from hydralora.experiments.studies.study import BASE, Study, declared_studies, read_study
from hydralora.files import write_text
from hydralora.runs.state import StateName

from ...services import Services
from ..reading import counted
from ..recipes import model_name

FOLDER = "study-files"  # of the workspace
LARGEST = 64 * 1024  # bytes of a file
MAY_SET = ("method", "quantization")
FILES = ("components.sentence_model",)  # settings that may name one
OUTWARD = ("training.benchmarks", "training.report_to")  # settings that reach other machines
MAY_SET_OF = ("components", "rows", "training", "tuner")


class Elsewhere(TypedDict):
    """A study that another page makes; `page` is its name, `about` says where on it."""

    title: str
    question: str
    about: str
    page: str


ELSEWHERE: tuple[Elsewhere, ...] = (
    {
        "title": "Clusterings over trials",
        "question": "How many components do the rows have, and does another seed or method find as many?",
        "about": "On Components: How many, by other methods",
        "page": "components",
    },
    {
        "title": "Breakdown of A and B",
        "question": "Do LoRAs that are trained on one component each agree in A and separate in B?",
        "about": "On Explore: Breakdown",
        "page": "explore",
    },
)


class Thumbnail(TypedDict):
    """A small figure: a value for each arm, and what they are; or what is run, a row of `across` cells for each arm."""

    about: str
    points: list[tuple[str, float]]
    arms: list[str]
    across: int


class Card(TypedDict):
    """A study to choose; `about` says what it compares, `own` whether a user has uploaded it."""

    name: str
    title: str
    question: str
    about: str
    own: bool
    thumbnail: Thumbnail


class Begun(TypedDict):
    """A study that was begun; `dot` as that of a run."""

    id: str
    title: str
    about: str
    dot: str


class Cards(TypedDict):
    """What the page offers; `chosen` is a card's name, "" for none."""

    cards: list[Card]
    elsewhere: tuple[Elsewhere, ...]
    chosen: str


def cards(services: Services, chosen: str) -> Cards:
    """All studies. A damaged file of a user's own is left out."""
    studies = services.studies.all()
    offered = [_card(services, name, find_study(services, name), studies) for name in _names(services)]
    return {
        "cards": offered,
        "elsewhere": ELSEWHERE,
        "chosen": chosen if chosen in {card["name"] for card in offered} else "",
    }


def begun(services: Services) -> list[Begun]:
    """The studies that were begun in this workspace, the newest first; then the finished ones that ship."""
    known = states(services)
    own = [_begun(study, known.get(study.id, Counter())) for study in services.studies.all()]
    return own + [_shipped(study) for study in shipped_studies().values()]


def find_study(services: Services, name: str) -> Study:
    """A study that ships or that a user has uploaded.

    Raises:
        ConfigError: there is none, or its file is wrong.
    """
    path = declared_studies().get(name) or _own(services).get(name)
    if path is None:
        raise ConfigError("There is no such study any more. Choose another card.")
    return read_study(path)


def upload(services: Services, file: str) -> str:
    """Check and keep a study's file; returns the name of its card.

    Raises:
        ConfigError: it is too large, or what is wrong in it.
    """
    path = Path(file or "")
    if not path.is_file():
        raise ConfigError("There is no such file. Choose a study's file.")
    size = path.stat().st_size
    if size > LARGEST:
        raise ConfigError(f"{path.name} has {size:,} bytes; a study has at most {LARGEST:,}. Is it the right file?")
    text = path.read_text(encoding="utf-8", errors="replace")
    _refuse_foreign(path.name, read_study(path))
    slug = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "study"
    name = f"{slug}-own" if slug in declared_studies() else slug
    write_text(study_files(services) / f"{name}.yaml", text)
    return name


def study_files(services: Services) -> Path:
    """The workspace's folder of what people bring for studies."""
    folder = services.store.workspace / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _refuse_foreign(file: str, study: Study) -> None:
    """A page names no files of this machine, and starts no jobs elsewhere: neither does a study that is uploaded."""
    keys = [*study.recipe, *study.axes, *(key for arm in study.arms.values() for key in arm.settings)]
    for key in [*keys, *([study.tune.setting] if study.tune else [])]:
        if key in FILES + OUTWARD or (key not in MAY_SET and key.partition(".")[0] not in MAY_SET_OF):
            raise ConfigError(
                f"{file}: it sets {key[:60]!r}. A study on this page sets {', '.join(MAY_SET)} and settings of "
                f"{', '.join(MAY_SET_OF)}; the dataset and the base model are chosen on the page."
            )


def _own(services: Services) -> dict[str, Path]:
    files = study_files(services).glob("*.yaml")
    return {path.stem: path for path in sorted(files)}


def _names(services: Services) -> list[str]:
    names = list(declared_studies())
    for name, path in _own(services).items():
        try:
            read_study(path)
            names.append(name)
        except ConfigError:
            continue
    return names


def _card(services: Services, name: str, study: Study, studies: list[RunningStudy]) -> Card:
    tried = f", each tried with {len(study.tune.values)} values of a setting" if study.tune else ""
    return {
        "name": name,
        "title": study.title,
        "question": study.question,
        "about": f"{counted(len(study.arms), 'arm')}{tried}",
        "own": name not in declared_studies(),
        "thumbnail": _thumbnail(services, name, study, studies),
    }


def _thumbnail(services: Services, name: str, study: Study, studies: list[RunningStudy]) -> Thumbnail:
    """The paper's numbers if it has some, else those of the newest study that was looked at, else of one that ships;
    else what it runs."""
    if study.paper:
        return _of_values(f"Paper: {study.paper.measure}", list(study.paper.values.items()))
    looks = [services.studies.last(running.id) for running in studies if running.file.name == name]
    own = [("Here", look.report) for look in looks if look]
    ships = [(each.file.settings.data, each.report) for each in shipped_studies().values() if each.file.name == name]
    for where, found in [*own, *ships]:
        if found.table:
            known = [line for line in found.table if found.judged in line.measures and line.arm != BASE]
            points = [(line.arm, line.measures[found.judged].mean) for line in known]
            return _of_values(f"{where}: {MEASURES[found.judged].label}", points)
    across = len(study.points())
    about = "Nothing measured yet" + (f"; each arm is run at {across} points" if across > 1 else "")
    return {"about": about, "points": [], "arms": list(study.arms), "across": across}


def _of_values(about: str, points: list[tuple[str, float]]) -> Thumbnail:
    return {"about": about, "points": points, "arms": [], "across": 0}


def states(services: Services) -> dict[str, Counter[StateName]]:
    """How many of a study's runs are in each state, by its id; nothing is planned for that."""
    counts: dict[str, Counter[StateName]] = {}
    for run, state in services.jobs.states().items():
        if study := study_of(run.label()):
            counts.setdefault(study, Counter())[state.state] += 1
    return counts


def _shipped(study: ShippedStudy) -> Begun:
    settings = study.file.settings
    about = f"On the data {settings.data}, {counted(settings.seeds, 'seed')}: finished, ships with the studio"
    return {"id": study.id, "title": study.file.study.title, "about": about, "dot": "finished"}


def _begun(study: RunningStudy, counts: Counter[StateName]) -> Begun:
    settings, total = study.file.settings, sum(counts.values())
    length = "" if settings.steps is None else f", {counted(settings.steps, 'step')}"
    active = total - sum(counts[state] for state in ("finished", "failed", "stopped", "interrupted"))
    size = f"{model_name(settings.model)}, {counted(settings.seeds, 'seed')}{length}"
    dot = "active" if active else "failed" if counts["failed"] else "finished" if total else ""
    done = f"{counts['finished']} of {counted(total, 'run')} finished" if total else "no runs yet"
    return {"id": study.id, "title": study.file.study.title, "about": f"{size}: {done}", "dot": dot}
