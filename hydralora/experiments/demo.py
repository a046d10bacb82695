"""The main job on the demo dataset: components, fine-tune, measurements, report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydralora.assets import demo_file
from hydralora.errors import RunError
from hydralora.jobs import JobManager
from hydralora.models import DEFAULT_MODEL
from hydralora.recipe import Recipe, parse_recipe
from hydralora.runs import RunStore, write_json


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
