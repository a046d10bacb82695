"""The run to watch: started in the ordinary queue, and drawn from its snapshots while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydralora import figures
from hydralora.analysis import head_similarity, head_spread, matrices, project_matrices, read_weights
from hydralora.errors import HydraError
from hydralora.experiments.sandbox import BLOCKS, ROWS, SKILLS, STEPS, sandbox_recipe, write_slice
from hydralora.runs.run import Run
from hydralora.runs.snapshots import saved_snapshots

from ...services import Services
from ...services.cache import ResultKind
from ..recipes import resolve_model
from ..train import tab as train

NO_RUN = (
    f"Trains the last {BLOCKS} layers of the base model on {SKILLS * ROWS} rows of the demo, with {SKILLS} heads, for "
    f"{STEPS} steps. It runs in the ordinary queue; on an idle CPU it takes less than a minute."
)
PARTED = 0.5  # mean cosine below which heads are said to have learnt different things


@dataclass(frozen=True)
class Spread:
    """How far a snapshot's heads are apart: each one's distance from their mean, and their mean cosine."""

    distances: list[float]
    cosine: float | None


@dataclass(frozen=True)
class SandboxView:
    """What the page shows; the figures are "" until there is a snapshot."""

    sentence: str
    bar: train.Bar | None = None
    is_active: bool = False
    distances: str = ""
    paths: str = ""


SPREAD = ResultKind[Spread]("spread", keep=64)
FIGURES = ResultKind[tuple[str, str]]("parting")


def start(services: Services, model: str) -> str:
    """Start the run on a base model named as in the form; returns its id.

    Raises:
        HydraError: the model is not on this machine, or the queue can't be written.
    """
    name = resolve_model(services, model)
    blocks = services.config(name).num_hidden_layers
    files = write_slice(services.store.workspace / "sandbox")
    return services.jobs.start(sandbox_recipe(name, blocks, files)).id


def stop(services: Services, run_id: str) -> None:
    """Stop the run; what it has learnt is kept."""
    services.jobs.stop(services.run(run_id))


def mark(services: Services, run_id: str | None) -> str:
    """Differs whenever there is something new to show."""
    run = _known(services, run_id)
    if run is None:
        return ""
    state = services.jobs.refresh(run)
    return f"{run.id} {state.state} {state.step} {state.heartbeat} {len(saved_snapshots(run.snapshots))}"


def view(services: Services, run_id: str | None) -> SandboxView:
    """What to show of the run.

    Raises:
        HydraError: a snapshot can't be read.
    """
    run = _known(services, run_id)
    if run is None:
        return SandboxView(NO_RUN)
    shown = train.view(services, run.id)
    told = run.state().step  # a snapshot is written before the step is told
    steps = tuple(step for step in saved_snapshots(run.snapshots) if step <= told)
    distances, paths = _figures(services, run, steps) if steps else ("", "")
    seen = _sentence(services, run, steps) if steps else ""
    sentence = " ".join(text for text in (shown.words.happened, seen) if text)
    return SandboxView(sentence, shown.words.bar, shown.buttons.active, distances, paths)


def _known(services: Services, run_id: str | None) -> Run | None:
    try:
        return services.run(run_id) if run_id else None
    except HydraError:  # deleted meanwhile
        return None


def _spread(services: Services, run: Run, step: int) -> Spread:
    def compute() -> Spread:
        weights = read_weights(run.snapshots, saved_snapshots(run.snapshots)[step])
        cosines = [value for value in head_similarity(weights).values() if value is not None]
        return Spread(head_spread(weights), sum(cosines) / len(cosines) if cosines else None)

    return services.cache.remember(SPREAD, run.id, step, compute=compute)


def _figures(services: Services, run: Run, steps: tuple[int, ...]) -> tuple[str, str]:
    def compute() -> tuple[str, str]:
        saved = saved_snapshots(run.snapshots)
        spreads = [(step, _spread(services, run, step).distances) for step in steps]
        module = list(read_weights(run.snapshots, saved[steps[-1]]))[-1]
        heads = [
            matrix
            for step in steps
            for matrix in matrices({module: read_weights(run.snapshots, saved[step])[module]}, run.id, step)
            if matrix.kind == "head"
        ]
        (group,) = project_matrices(heads)
        return figures.head_distances(spreads, STEPS), figures.head_paths(
            group, f"Heads of {figures.module_name(module)}"
        )

    return services.cache.remember(FIGURES, run.id, steps, compute=compute)


def _sentence(services: Services, run: Run, steps: Sequence[int]) -> str:
    """What was seen so far."""
    now = _spread(services, run, steps[-1])
    distance = sum(now.distances) / len(now.distances)
    if distance == 0:
        return "All heads are one point: each of them is still zero."
    begun = f"The heads began as one point. At step {steps[-1]} they are {distance:.2f} from their mean"
    if now.cosine is None:
        return f"{begun}."
    verdict = "they have learnt different things" if now.cosine < PARTED else "they still learn much the same"
    return f"{begun}, and the mean cosine between two of them is {now.cosine:.2f}: {verdict}."
