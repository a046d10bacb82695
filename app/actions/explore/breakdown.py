"""The Breakdown view of Explore: a LoRA for each component, and how far apart their A's and B's lie."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from hydralora.analysis import PointGroup, project_matrices
from hydralora.analysis.breakdown import (
    STEPS,
    Breakdown,
    Part,
    break_down,
    breakdown_runs,
    breakdown_steps,
    component_names,
    heads_apart,
    heads_reading,
    start_breakdown,
)
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.errors import ConfigError
from hydralora.projection import Method
from hydralora.runs.run import Run
from hydralora.runs.state import RunState

from ...services import Services
from ...services.background import in_background
from ...services.cache import ResultKind
from ...services.processes import in_process
from ..adapters import adapter_weights, why_no_adapter
from ..reading import Cell
from .shapes import draw_shapes

COLUMNS = ["what", "shape", "apart by", "silhouette", "95 % by chance", "apart", "mean cosine"]
APART = {True: "yes", False: "no", None: "can't tell"}
CLAIM = (
    "The paper's figure 3 trains a LoRA on each component alone and claims that their A's become alike while their B's "
    "differ. This view repeats that on your rows and measures it."
)
TESTED = (
    "Silhouettes compare all values of two matrices, over all modules of a shape. The table tests each shape on its "
    "own, so among many shapes one may lie apart by chance."
)
PLACES = ResultKind[list[PointGroup]]("breakdown points", keep=8)
COMPARED = ResultKind[Breakdown]("breakdown", keep=2)


@dataclass(frozen=True)
class BreakdownView:
    """What the page shows.

    Attributes:
        signature: equal for equal views.
        ready: whether it can be started.
        working: whether its runs are active, so that the view will change.
        caption: how to read the figures.
        shapes: the names of all shapes; `drawn` of those that are drawn.
    """

    signature: tuple[Hashable, ...]
    sentence: str
    ready: bool = False
    working: bool = False
    rows: list[list[Cell]] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    caption: str = ""
    shapes: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)


def start(services: Services, run_id: str, steps: int = STEPS) -> None:
    """Queue the LoRAs that are missing.

    Raises:
        HydraError: the run's components are not known, or there is only one.
    """
    start_breakdown(services.jobs, services.run(run_id), steps)


def view(services: Services, run_id: str | None, method: Method, shapes: Sequence[str] = ()) -> Iterator[BreakdownView]:
    """The progress of the run's newest breakdown; once all its LoRAs are trained, the comparison.

    Raises:
        HydraError: an adapter can't be read.
    """
    if not run_id:
        yield BreakdownView((None,), f"No run is chosen. Train one first. {CLAIM}")
        return
    run = services.run(run_id)
    try:
        steps = breakdown_steps(services.store, run)
        loras = breakdown_runs(services.store, run, steps)
    except ConfigError as error:  # this kind of run has no breakdown: no reason to warn
        yield BreakdownView((run_id,), str(error))
        return
    started = [lora for lora in loras if lora is not None]
    states = [services.jobs.refresh(lora) for lora in started]
    finished = [lora for lora, state in zip(started, states, strict=True) if state.state == "finished"]
    if len(finished) < len(loras):
        progress = tuple((state.id, state.state, state.step) for state in states)
        working = any(state.is_active for state in states)
        sentence = _progress(len(loras), len(finished), states, run)
        yield BreakdownView((run_id, progress, steps), sentence, not working, working)
        return
    trained = _Trained(run_id, tuple(lora.id for lora in finished), steps, method)
    if not services.cache.has(PLACES, trained):
        key = (trained, *shapes)
        yield BreakdownView(
            (*key, "computing"), "All LoRAs are trained. Their matrices are being compared.", working=True
        )
        for _ in in_background(lambda on_progress: _drawn(services, trained, shapes)):
            pass
    yield _drawn(services, trained, shapes)


def _progress(count: int, done: int, states: Sequence[RunState], run: Run) -> str:
    if not states:
        return f"{CLAIM} It takes {count} LoRAs of rank {run.recipe().tuner.r}."
    wrong = [state for state in states if not state.is_active and state.state != "finished"]
    if wrong:
        first = wrong[0]
        why = f"Run {first.id} is {first.state}: {first.message.rstrip('.')}."
        return f"{why} Start again to train the missing LoRAs."
    now = [f"step {state.step} of {state.max_steps}" for state in states if state.state == "training"]
    return f"{done} of {count} LoRAs are trained{', one is at ' + now[0] if now else ''}. They are also listed in Runs."


@dataclass(frozen=True)
class _Trained:
    """A breakdown whose LoRAs, one for each component of `run_id`'s rows, are trained."""

    run_id: str
    lora_ids: tuple[str, ...]
    steps: int
    method: Method


def _drawn(services: Services, trained: _Trained, shapes: Sequence[str]) -> BreakdownView:
    run = services.run(trained.run_id)
    compared = _compared(services, trained)
    heads = [] if why_no_adapter(services, run.id) else heads_apart(adapter_weights(services, run.id))
    sentences = [
        f"After {trained.steps} steps of each.",
        compared.reading(),
        heads_reading(heads, run.recipe()),
        TESTED,
    ]
    groups = services.cache.remember(
        PLACES, trained, compute=lambda: project_matrices(compared.members, trained.method)
    )
    drawn = draw_shapes(groups, shapes, "run")
    return BreakdownView(
        (trained, *shapes),
        " ".join(filter(None, sentences)),
        ready=True,
        rows=[*_rows(compared.parts, "component"), *_rows(heads, "head")],
        figures=drawn.figures,
        caption=f"{drawn.caption} {drawn.left_out}".strip(),
        shapes=drawn.shapes,
        drawn=drawn.drawn,
    )


def _compared(services: Services, trained: _Trained) -> Breakdown:
    runs = (services.run(run_id) for run_id in trained.lora_ids)
    named = dict(zip(component_names(services.run(trained.run_id)), runs, strict=True))
    return services.cache.remember(
        COMPARED, trained.lora_ids, compute=lambda: in_process(_break_down, named, on_progress=ignore_progress)
    )


def _break_down(runs: dict[str, Run], on_progress: OnProgress) -> Breakdown:
    return break_down(runs)


def _rows(parts: Sequence[Part], label: str) -> list[list[Cell]]:
    names = {"head": "heads of the chosen run"}
    out: list[list[Cell]] = []
    for part in parts:
        separation = part.separation
        low, high = separation.chance
        out.append(
            [
                names.get(part.what, part.what),
                "{} x {}".format(*separation.shape),
                label,
                round(separation.silhouette, 3),
                f"{low:.3f} to {high:.3f}",
                APART[separation.apart],
                None if separation.cosine is None else round(separation.cosine, 3),
            ]
        )
    return out
