"""Many pages that look at one run: python -m tests.benchmarks.soak [--minutes 30] [--clients 20].

A run of the demo on the default base model trains meanwhile, on the same cores. Each client looks once a second as an
open page does, and asks for what has changed; told are how long the answers took, and the memory of the app's process
by the minute.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.tabs.train.tab import POLL_SECONDS
from hydralora.data.demo import demo_file
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.reading import parse_recipe
from hydralora.runs.jobs import JobManager
from hydralora.runs.store import RunStore
from tests.serving import running_app

SETTLING = 5  # minutes before memory is compared: caches fill


@dataclass(frozen=True)
class Listeners:
    """Numbers of listeners: the one that looks at a run again and again, and by state those that show what changed."""

    look: int
    show: dict[int, list[int]]


def listeners(config: dict[str, Any]) -> Listeners:
    names = {component["id"]: component["props"].get("elem_id") for component in config["components"]}
    show: dict[int, list[int]] = {}
    for dependency in config["dependencies"]:
        for target, event in dependency["targets"]:
            if event == "change":
                show.setdefault(target, []).append(dependency["id"])
    filled = {
        dependency["id"]: [names[output] for output in dependency["outputs"]] for dependency in config["dependencies"]
    }
    for dependency in config["dependencies"]:
        ticks = any(event == "tick" for _, event in dependency["targets"])
        then = [one for state in dependency["outputs"] for one in show.get(state, [])]
        if ticks and any("status" in filled[one] for one in then):
            return Listeners(dependency["id"], {state: show[state] for state in dependency["outputs"]})
    raise AssertionError("no listener of a timer leads to one that shows a run")


async def client(url: str, known: Listeners, run_id: str, until: float, took: list[float], delay: float) -> None:
    """One page, opened a little later than the one before; the seconds of each answer go to `took`."""
    session = uuid.uuid4().hex
    await asyncio.sleep(delay)
    async with httpx.AsyncClient(base_url=f"{url}/gradio_api", timeout=60) as http:

        async def ask(listener: int) -> list[int]:
            """The states that the answer has changed."""
            began, changed = time.monotonic(), None
            asked = {"data": [run_id], "fn_index": listener, "session_hash": session, "event_data": None}
            (await http.post("/queue/join", json=asked)).raise_for_status()
            async with http.stream("GET", "/queue/data", params={"session_hash": session}) as answer:
                async for line in answer.aiter_lines():
                    message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                    if message.get("msg") == "process_completed":
                        assert message["success"], message
                        changed = message["output"]["changed_state_ids"]
                        break
            took.append(time.monotonic() - began)
            return changed or []

        while time.monotonic() < until:
            began = time.monotonic()
            for state in await ask(known.look):
                for listener in known.show[state]:
                    await ask(listener)
            await asyncio.sleep(max(0.0, POLL_SECONDS - (time.monotonic() - began)))


async def soak(url: str, run_id: str, process: psutil.Process, minutes: int, clients: int) -> None:
    config = httpx.get(f"{url}/config", timeout=60).json()
    took: list[float] = []
    until = time.monotonic() + 60 * minutes
    known, delays = listeners(config), [i * POLL_SECONDS / clients for i in range(clients)]
    pages = [asyncio.create_task(client(url, known, run_id, until, took, delay)) for delay in delays]
    memory, counted = [], 0
    for minute in range(1, minutes + 1):
        await asyncio.sleep(60)
        new, counted = sorted(took[counted:]), len(took)
        memory.append(process.memory_info().rss)
        p95 = new[int(0.95 * len(new))] if new else float("nan")
        told = f"minute {minute:3}: {memory[-1] / 2**20:6.0f} MB, {len(new)} answers, 95 % in {1000 * p95:.0f} ms"
        print(told, flush=True)
    await asyncio.gather(*pages)
    took.sort()
    later = memory[SETTLING:] or memory
    most, end = max(later) / later[0] - 1, later[-1] / later[0] - 1
    print(
        f"{len(took)} answers to {clients} pages: median {1000 * statistics.median(took):.0f} ms, 95 % in "
        f"{1000 * took[int(0.95 * len(took))]:.0f} ms, most {1000 * took[-1]:.0f} ms; memory after minute {SETTLING}: "
        f"{later[0] / 2**20:.0f} MB, from there at most {most:+.1%}, at the end {end:+.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--clients", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        jobs = JobManager(RunStore(workspace))
        recipe = {
            "model": DEFAULT_MODEL,
            "data": {"train": str(demo_file("train")), "eval": str(demo_file("heldout"))},
            "training": {"max_steps": 100_000, "log_every": 1, "threads": 1},
        }
        run = jobs.start(parse_recipe(recipe))
        try:
            with running_app(workspace, os.environ) as app:
                asyncio.run(soak(app.url, run.id, psutil.Process(app.process.pid), chosen.minutes, chosen.clients))
            print(f"the run was at step {jobs.refresh(run).step}")
        finally:
            jobs.stop(run)
            jobs.follow(run)


if __name__ == "__main__":
    main()
