"""A lecture on a run: its pictures, one a screen, as Present, a class and the saved page show them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from hydralora import figures
from hydralora.errors import HydraError, RunError
from hydralora.figures import LectureScreen
from hydralora.inference.traces import load_trace
from hydralora.runs.run import Run
from hydralora.runs.snapshots import saved_snapshots

from ..services import Services
from ..services.cache import ResultKind
from ..services.components import ComponentRequest
from . import shell
from .chat.answers import COLUMNS, kept_answers
from .chat.columns import heads_of
from .chat.examples import examples
from .chat.saving import as_trace
from .components import row_map
from .components import tab as components
from .explore import points, trajectory
from .train import tab as train

SCREEN = ResultKind[LectureScreen]("lecture", keep=48)
PAGES = {"data": "data", "components": "components", "train": "training", "explore": "heads", "chat": "answer-1"}
ROWS = 4  # in the table of example rows
LONGEST = 200  # characters of a cell
ANSWER = re.compile(r"(answer|alone)-([1-9])")
MOST_TURNS = 8  # of a conversation, in a saved lecture
WHO = {"router": "Tuned", "base": "Base model"}


class ScreenEntry(TypedDict):
    """A screen to choose; `page` is the page of the app that shows the same."""

    name: str
    page: str
    title: str


@dataclass(frozen=True)
class _Picture:
    """A screen that is the same for every run: `draw` returns its content, `exists` whether a run has it."""

    page: str
    title: str
    caption: str
    draw: Callable[[Services, Run], LectureScreen]
    exists: Callable[[Services, Run], bool]


def outline(services: Services, run_id: str) -> list[ScreenEntry]:
    """The screens of a run, in the order of a lecture; nothing is computed.

    Raises:
        RunError: there is no such run.
    """
    run = services.run(run_id)
    found: list[ScreenEntry] = [
        {"name": name, "page": picture.page, "title": picture.title}
        for name, picture in PICTURES.items()
        if picture.exists(services, run)
    ]
    return found + [{"name": name, "page": "chat", "title": _answer_title(name)} for name in _saved(run)]


def screen(services: Services, run_id: str, name: str) -> LectureScreen:
    """One screen, computed once for all who look at it.

    Raises:
        HydraError: there is no such run, it has no such screen, or the screen can't be computed.
    """
    run = services.run(run_id)
    picture = PICTURES.get(name)
    if picture is None or not picture.exists(services, run):
        if name not in _saved(run):
            raise RunError(f"This run has no picture {name[:40]!r}. Choose another one.")
        return services.cache.remember(SCREEN, run_id, name, compute=lambda: _answers(services, run, name))
    key = run_id, name, run.state().adapter_hash, run.state().step
    drawn = services.cache.remember(SCREEN, *key, compute=lambda: picture.draw(services, run))
    return drawn


def turn_screen(services: Services, answer_ids: Mapping[str, str]) -> LectureScreen:
    """The kept answers of a conversation's turn, with all compared columns; ids are by column.

    Raises:
        HydraError: none of them is kept any longer, or none has ended.
    """
    found = kept_answers(services, answer_ids)
    traces = {key: as_trace(answer) for key, (_, answer) in found.items() if answer.has_ended and answer.tokens}
    if not traces:
        raise HydraError("These answers are not kept any longer, or have not ended. Ask again.")
    replayed = tuple((COLUMNS[key], trace.whose, trace.model_dump_json()) for key, trace in traces.items())
    heads = _heads(services, next((trace.run for trace in traces.values() if trace.run), None))
    return LectureScreen("turn", "chat", "An answer from Chat", ANSWER_READING, answers=replayed, heads=heads)


def page_screen(services: Services, run_id: str, page: str) -> str:
    """The name of the screen that shows what a page of the app is about, "" for none.

    Raises:
        RunError: there is no such run.
    """
    names = {entry["name"] for entry in outline(services, run_id)}
    name = PAGES.get(page, "")
    return name if name in names else ""


def save(services: Services, run_id: str, turns: Sequence[Mapping[str, str]]) -> Path:
    """Write a run's lecture, and the answers of these turns, as one page that works offline.

    Raises:
        HydraError: there is no such run, or a screen can't be computed.
    """
    run = services.run(run_id)
    screens = [screen(services, run_id, entry["name"]) for entry in outline(services, run_id)]
    screens += [turn_screen(services, turn) for turn in turns[:MOST_TURNS]]
    path = services.download("lecture.html", f"lecture {run_id} {[sorted(turn.items()) for turn in turns]}")
    figures.write_lecture(path, f"HydraLoRA studio: {run.name}", screens)
    return path


def _draw_data(services: Services, run: Run) -> LectureScreen:
    rows = examples(services, run.id, "")[:ROWS]
    table = tuple((row["task"], _short(row["question"]), _short(row["expected"])) for row in rows)
    return _screen("data", table=(("task", "question", "expected answer"), *table))


def _draw_number(services: Services, run: Run) -> LectureScreen:
    dataset_id, request = _clustered(services, run)
    return _screen("number", figure=components.view(services, dataset_id, request).curve)


def _draw_components(services: Services, run: Run) -> LectureScreen:
    dataset_id, request = _clustered(services, run)
    *_, view = row_map.draw(services, dataset_id, request, "pca", "component", legend=True)
    return _screen("components", figure=view.figure or "")


def _draw_loss(services: Services, run: Run) -> LectureScreen:
    return _screen("loss", figure=train.view(services, run.id).curves.loss)


def _draw_training(services: Services, run: Run) -> LectureScreen:
    module = trajectory.modules(services, run.id)[0][1]
    *_, view = trajectory.view(services, run.id, module, "pca")
    return _screen("training", figure=(view.figures or [""])[0])


def _draw_heads(services: Services, run: Run) -> LectureScreen:
    *_, view = points.view(services, points.PointsRequest((run.id,), "parts"), "head")
    return _screen("heads", figure=(view.figures or [""])[-1])


def _draw_use(services: Services, run: Run) -> LectureScreen:
    return _screen("use", figure=train.view(services, run.id).measured.use)


def _has_data(services: Services, run: Run) -> bool:
    return shell.dataset_of(services, run.id) is not None


def _has_heads(services: Services, run: Run) -> bool:
    return run.has_adapter and run.recipe().tuning.has_matrices


def _has_loss(services: Services, run: Run) -> bool:
    return bool(train.view(services, run.id).curves.loss)


def _has_use(services: Services, run: Run) -> bool:
    return bool(train.view(services, run.id).measured.use)


def _has_snapshots(services: Services, run: Run) -> bool:
    return len(saved_snapshots(run.snapshots)) > 1


ALONE_READING = "Each head answers alone, with the whole weight. Most have not learnt what is asked here."
ANSWER_READING = "A token has the colour of its leading head; a grey one has none. A gate is a weight, not an effect."
PICTURES = {
    "data": _Picture(
        "data",
        "What the rows ask",
        "Rows that the run has never seen. Different tasks want different things from the same weights.",
        _draw_data,
        _has_data,
    ),
    "number": _Picture(
        "components",
        "How many components the data has",
        "The curve of SSE, how far rows are from the centre of their component, bends where one more explains little. "
        "That number becomes the number of heads. Silhouette, how clearly components are apart, is a second opinion.",
        _draw_number,
        _has_data,
    ),
    "components": _Picture(
        "components",
        "The components of the data",
        "Each point is a row. Rows that are alike lie close together. Distances between far groups say little.",
        _draw_components,
        _has_data,
    ),
    "loss": _Picture(
        "train",
        "The loss during training",
        "Loss on the answers, in nats per token. Lower is better.",
        _draw_loss,
        _has_loss,
    ),
    "training": _Picture(
        "explore",
        "The heads part during training",
        "One module's A and heads, from step to step, in one projection. Press Play, or move the slider.",
        _draw_training,
        _has_snapshots,
    ),
    "heads": _Picture(
        "explore",
        "A and the heads as points",
        "Each point is one matrix of one layer. The heads of a layer begin as one point and part while they learn.",
        _draw_heads,
        _has_heads,
    ),
    "use": _Picture(
        "train",
        "Which head answers which component",
        "Mean gate of each head on held-out rows. No row was assigned to a head: the router found this by itself.",
        _draw_use,
        _has_use,
    ),
}


def _screen(
    name: str,
    figure: str = "",
    table: tuple[tuple[str, ...], ...] = (),
) -> LectureScreen:
    picture = PICTURES[name]
    return LectureScreen(name, picture.page, picture.title, picture.caption, figure, table)


def _clustered(services: Services, run: Run) -> tuple[str, ComponentRequest]:
    """A run's dataset, and the request of its components, which are found if they are not yet.

    Raises:
        RunError: this workspace has no such dataset.
    """
    dataset_id, recipe = shell.dataset_of(services, run.id), run.recipe()
    if dataset_id is None:
        raise RunError(f"The dataset of {run.name} is not in this workspace any longer. Choose another picture.")
    request = ComponentRequest(recipe.components, recipe.model)
    services.components.find(dataset_id, request)
    return dataset_id, request


def _saved(run: Run) -> list[str]:
    """The screens of saved answers: each question, then the first one again with each head alone."""
    numbers = sorted(path.name.partition("-")[0] for path in run.answers.glob("[1-9]-router.json"))
    alone = ["alone-1"] if any(run.answers.glob("1-head-*.json")) else []
    names = [f"answer-{number}" for number in numbers]
    return [*names[:1], *alone, *names[1:]]


def _answer_title(name: str) -> str:
    kind, _, number = name.partition("-")
    return (
        "The same question, each head alone" if kind == "alone" else f"Question {number}: the tuned model and its base"
    )


def _heads(services: Services, run_id: str | None) -> tuple[str, ...]:
    """The component that each head of a run has taken."""
    try:
        return tuple(heads_of(services, run_id)["names"])
    except HydraError:  # the run was deleted, or its adapter is damaged
        return ()


def _answers(services: Services, run: Run, name: str) -> LectureScreen:
    found = ANSWER.fullmatch(name)
    assert found  # `_saved` names no others
    kind, number = found.groups()
    files = {who: run.answers / f"{number}-{who}.json" for who in WHO}
    if kind == "alone":
        files = {path.stem.partition("-")[2]: path for path in sorted(run.answers.glob(f"{number}-head-*.json"))}
    traces = {who: load_trace(path) for who, path in files.items() if path.exists()}
    replayed = tuple(
        (WHO.get(who, who.replace("-", " ").capitalize()), trace.whose, trace.model_dump_json())
        for who, trace in traces.items()
    )
    caption = ALONE_READING if kind == "alone" else ANSWER_READING
    heads = _heads(services, run.id)
    return LectureScreen(name, "chat", _answer_title(name), caption, answers=replayed, heads=heads)


def _short(text: str) -> str:
    text = re.sub(r"\n\s*\n", "\n", text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
