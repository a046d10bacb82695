"""The main job on the demo dataset: components, fine-tune, measurements, report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydralora.data.demo import demo_file
from hydralora.errors import RunError
from hydralora.files import write_json
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.jobs import JobManager
from hydralora.runs.store import RunStore


def demo_recipe(model: str = DEFAULT_MODEL) -> Recipe:
    """The recipe of the demo: every setting is the default."""
    return parse_recipe({"model": model, "data": {"train": str(demo_file("train")), "eval": str(demo_file("heldout"))}})


def run_demo(output: Path, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run the demo in a worker of its own in `output`, and write report.json there.

    Raises:
        RunError: the run failed or was stopped.
    """
    output.mkdir(parents=True, exist_ok=True)
    jobs = JobManager(RunStore(output))
    run = jobs.start(demo_recipe())
    state = jobs.follow(run, on_event)
    if state["state"] != "finished":
        raise RunError(f"The demo's run {state['state']}: {state['message']}. Its log is {run.log}.")
    results = state["results"]
    report = {
        "version": 1,
        "rows": results["rows"],
        "k": results["k"],
        "sizes": results["sizes"],
        "ari": results["ari"],
        "base": results["base"],
        "tuned": results["tuned"],
        "seconds": results["seconds"],
        "parameters": results["parameters"],
        "adapter": str(run.adapter),
        "run": run.id,
        "component_by_head": results["component_by_head"],
        "components": results["components"],
        "base_model": results["base_model"],
        "adapter_hash": results["adapter_hash"],
    }
    write_json(output / "report.json", report)
    return report


def demo_table(report: dict[str, Any]) -> str:
    """A demo's report as text: before and after for each task, and each head's share in each component."""
    base, tuned = report["base"], report["tuned"]
    lines = [f"{report['k']} components, adjusted Rand index against the tasks {report['ari']:.3f}", ""]
    lines += [f"{'':14}{'loss':>16}{'exact match':>18}", f"{'':14}{'base':>8}{'tuned':>8}{'base':>9}{'tuned':>9}"]
    for name, before in [*base["per_task"].items(), ("all", base)]:
        after = tuned if name == "all" else tuned["per_task"][name]
        lines.append(
            f"{name:14}{before['loss']:8.3f}{after['loss']:8.3f}{before['exact_match']:9.1%}{after['exact_match']:9.1%}"
        )
    heads = range(len(report["component_by_head"]))
    lines += [
        "",
        "mean gate of each head on each component's held-out rows",
        " " * 30 + "".join(f" head{j}" for j in heads),
    ]
    for component, gates in zip(report["components"], report["component_by_head"], strict=True):
        lines.append(f"{component['name'][:28]:30}" + "".join(f"{gate:6.2f}" for gate in gates))
    lines += ["", f"{sum(report['seconds'].values()):.0f} s in all; report, run and adapter: {report['adapter']}"]
    return "\n".join(lines)
