"""What a study takes, before it is run."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from hydralora.data.progress import OnProgress, describe_duration, ignore_progress
from hydralora.errors import HydraError
from hydralora.experiments.studies.cells import Cell, Settings
from hydralora.experiments.studies.running import FILE, RunningStudy, StudyFile, folder_of, write_study
from hydralora.experiments.studies.study import Study
from hydralora.runs.jobs import JobManager
from hydralora.runs.records import Record
from hydralora.runs.store import RunStore
from hydralora.training.estimate import run_seconds
from hydralora.training.sizes import adapter_size, disk_bytes


class PlanLine(Record):
    """An arm's runs."""

    name: str
    runs: int
    seconds: float | None


class StudyPlan(Record):
    """What a study needs.

    Attributes:
        runs: all of them; `left`, those that have not finished.
        seconds: of those that are left, one after the other on this machine's CPU; None where the base model is not on
            this machine.
        kwh: the energy for that, at the rate of this workspace's newest run; None where none was measured.
        bytes: of the files of those that are left.
    """

    lines: list[PlanLine]
    runs: int
    left: int
    seconds: float | None
    kwh: float | None
    bytes: int

    def sentence(self) -> str:
        if self.seconds is None:
            time = "how long they take is known once the base model is on this machine"
        else:
            energy = "" if self.kwh is None else f", {self.kwh:.2f} kWh"
            time = f"about {describe_duration(self.seconds)} one after the other{energy}" if self.left else "nothing"
        return f"{self.runs} runs, {self.left} still to be done: {time}, {self.bytes / 1e9:.1f} GB of files."


def cost_of(
    workspace: Path, name: str, study: Study, settings: Settings, on_progress: OnProgress = ignore_progress
) -> StudyPlan:
    """What a study needs that need not have been begun; nothing is kept.

    Raises:
        HydraError: a setting is wrong, or the data can't be used.
    """
    jobs, file = JobManager(RunStore(workspace)), StudyFile(name=name, study=study, settings=settings)
    folder = folder_of(jobs.store, file)
    if (folder / FILE).exists():
        return planned(RunningStudy(jobs, folder), on_progress)
    with TemporaryDirectory(prefix="hydralora-") as place:
        own = Path(place) / folder.name
        write_study(own, file)
        return planned(RunningStudy(jobs, own), on_progress)


def planned(study: RunningStudy, on_progress: OnProgress = ignore_progress) -> StudyPlan:
    """What a study needs; nothing is started.

    Args:
        on_progress: told how many of the different runs are estimated.

    Raises:
        HydraError: the data can't be used.
    """
    tuning, tune = study.tuning, study.file.study.tune
    # Where no value is chosen yet, any one will do: it makes no difference to the time.
    middle: object = tune.values[len(tune.values) // 2] if tune else None
    cells = [*tuning, *study.plan.reported({cell.place: middle for cell in tuning} | study.chosen())]
    finished = [cell for cell, run in study.runs(cells) if run and run.state().state == "finished"]
    left = [cell for cell in cells if cell not in finished]
    examples = {_title(cell): cell for cell in cells}
    seconds = {}
    for done, (title, cell) in enumerate(examples.items()):
        on_progress(done, len(examples))
        seconds[title] = run_seconds(cell.recipe, base_known=True)
    bytes_each = {title: _file_bytes(cell) for title, cell in examples.items()}
    taken = [seconds[_title(cell)] for cell in left]
    first_on_rows = {(cell.recipe.model, cell.recipe.data.eval): cell for cell in left}.values()
    known = [value for value in taken if value is not None]
    total = sum(known) + sum(map(_base_seconds, first_on_rows)) if len(known) == len(taken) else None
    power = _kwh_a_second(study.jobs.store)
    counts = Counter(map(_title, cells))
    return StudyPlan(
        lines=[PlanLine(name=title, runs=count, seconds=seconds[title]) for title, count in counts.items()],
        runs=len(cells),
        left=len(left),
        seconds=total,
        kwh=None if total is None or power is None else total * power,
        bytes=sum(bytes_each[_title(cell)] for cell in left),
    )


def _base_seconds(cell: Cell) -> float:
    """What it takes to measure the base model on a cell's rows, which is done once for all cells on them."""
    return (run_seconds(cell.recipe) or 0) - (run_seconds(cell.recipe, base_known=True) or 0)


def _kwh_a_second(store: RunStore) -> float | None:
    """What the newest run whose energy was measured here took; None if there is none."""
    for run, state in store.states().items():
        results = None if run.is_shipped else state.results
        if results and results.energy_kwh and results.total_seconds:
            return results.energy_kwh["total"] / results.total_seconds
    return None


def _title(cell: Cell) -> str:
    name = ", ".join(filter(None, cell.place))
    return name if cell.tried is None else f"{name}, to choose its setting"


def _file_bytes(cell: Cell) -> int:
    try:
        trained = adapter_size(cell.recipe, cell.recipe.tuner.num_heads or 4).weight_bytes
    except HydraError:  # the model's config is not on this machine
        return 0
    return disk_bytes(cell.recipe, trained, cell.recipe.training.max_steps or 1)
