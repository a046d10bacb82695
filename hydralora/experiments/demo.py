"""The main workflow on the demo dataset: components, fine-tuning, evaluation, report."""

from pathlib import Path

from hydralora.data.demo import demo_file
from hydralora.errors import RunError
from hydralora.files import write_json
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.models.fetching import BaseModelInfo
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import OnEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.records import Record
from hydralora.runs.results import ComponentSummary, RowCounts
from hydralora.runs.scores import Scores
from hydralora.runs.store import RunStore
from hydralora.tuner.model import ParameterCounts


def demo_recipe(model: str = DEFAULT_MODEL, steps: int | None = None) -> Recipe:
    """The recipe of the demo: every setting is the default, the number of steps too if none is given."""
    data = {"train": str(demo_file("train")), "eval": str(demo_file("heldout"))}
    return parse_recipe({"model": model, "data": data, "training": {"max_steps": steps} if steps else {}})


class DemoReport(Record):
    """The demo's report: the results of its run, and the path of its adapter."""

    version: int = 1
    rows: RowCounts
    k: int
    sizes: list[int]
    ari: float
    base: Scores
    tuned: Scores
    seconds: dict[str, float]
    parameters: ParameterCounts
    adapter: str
    run: str
    component_by_head: list[list[float]]
    components: list[ComponentSummary]
    base_model: BaseModelInfo
    adapter_hash: str


def run_demo(output: Path, on_event: OnEvent, steps: int | None = None) -> DemoReport:
    """Run the demo in its own worker process in `output`, and write report.json there.

    Raises:
        RunError: the run failed or was stopped.
    """
    output.mkdir(parents=True, exist_ok=True)
    jobs = JobManager(RunStore(output))
    run = jobs.start(demo_recipe(steps=steps))
    state = jobs.follow(run, on_event)
    if state.state != "finished" or state.results is None:
        raise RunError(f"The demo's run {state.state}: {state.message.rstrip('.')}. Its log is {run.log}.")
    known = {"run": run.id, "adapter": str(run.adapter)}
    report = DemoReport.model_validate(state.results.model_dump() | known)
    write_json(output / "report.json", report.model_dump(mode="json"))
    return report


def demo_table(report: DemoReport) -> str:
    """A demo's report as text: before and after for each task, and each head's share in each component."""
    base, tuned = report.base, report.tuned
    pairs = [(name, before, tuned.per_task[name]) for name, before in base.per_task.items()]
    lines = [f"{report.k} components, adjusted Rand index against the tasks {report.ari:.3f}", ""]
    lines += [f"{'':14}{'loss':>16}{'exact match':>18}", f"{'':14}{'base':>8}{'tuned':>8}{'base':>9}{'tuned':>9}"]
    lines += [
        f"{name:14}{before.loss:8.3f}{after.loss:8.3f}{before.exact_match:9.1%}{after.exact_match:9.1%}"
        for name, before, after in [*pairs, ("all", base, tuned)]
    ]
    heads = range(len(report.component_by_head))
    lines += [
        "",
        "mean gate of each head on each component's held-out rows",
        " " * 30 + "".join(f" head{j}" for j in heads),
    ]
    for component, gates in zip(report.components, report.component_by_head, strict=True):
        lines.append(f"{component.name[:28]:30}" + "".join(f"{gate:6.2f}" for gate in gates))
    lines += ["", f"{sum(report.seconds.values()):.0f} s in total; report, run and adapter: {report.adapter}"]
    return "\n".join(lines)
