"""A workspace of many runs, and a run of many events: python -m tests.benchmarks.workspace [--runs 500] [--events N].

Each figure is of a process of its own: CPU seconds, and the memory that it took at most beyond what the imported
program takes. "First" is without anything that an earlier process has left beside the runs, "again" is with it.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hydralora.files import to_json
from hydralora.runs.events import EvalEvent, Event, GatesEvent, NoteEvent, TrainEvent, Usage
from hydralora.runs.run import Label, Run
from hydralora.runs.store import RunStore

SHIPPED = Path(__file__).parents[2] / "assets" / "gallery"
MEGABYTE = 2**20
LONG = "20000102-000000-0000"
SETTLED = 2.5  # seconds after which no file is younger than what a cache trusts
USAGE = Usage(cpu_percent=190.0, memory_bytes=2**30, memory_free_bytes=2**33, disk_free_bytes=2**36)


def write_runs(workspace: Path, count: int, events: int) -> None:
    """Finished runs, each with a recipe, results, a label and a few events."""
    shipped = Run(SHIPPED)
    state, recipe = shipped.state(), shipped.recipe()
    for i in range(count):
        run = Run(workspace / "runs" / f"20260101-{i // 3600:02}{i // 60 % 60:02}{i % 60:02}-{i:04x}")
        run.folder.mkdir(parents=True)
        run.begin(recipe)
        run.write_state(state.changed(id=run.id))
        run.write_label(Label(f"Demo, 4 heads, run {i + 1}", tags=("demo",)))
        write_events(run, events, seed=i)


def write_events(run: Run, count: int, seed: int = 0) -> None:
    """Events as a worker writes them: mostly of training and of gates, an evaluation now and then."""
    draw = random.Random(seed)
    begun = time.time() - count
    with (run.folder / "events.jsonl").open("w", encoding="utf-8") as file:
        for i in range(count):
            event = _event(i // 2, begun + i, draw, i)
            file.write(to_json(event.values()) + "\n")


def _event(step: int, moment: float, draw: random.Random, place: int) -> Event:
    if place == 0:
        return NoteEvent(step=step, time=moment, message="prepared", max_steps=10**6)
    if place % 1000 == 1:
        split = "before" if place == 1 else "live"
        return EvalEvent(step=step, time=moment, split=split, loss=draw.random(), exact_match=0.5, rows=40)
    if place % 2:
        gates = [draw.random() / 4 for _ in range(4)]
        return GatesEvent(step=step, time=moment, mean_gate=gates, entropy=draw.random())
    usage = {"usage": USAGE} if place % 20 == 0 else {}
    loss = 3 / (1 + step / 1000) + draw.random() / 10
    rates = {"learning_rate": 1e-4, "gradient_norm": draw.random(), "tokens_per_second": 900 + draw.random()}
    return TrainEvent(step=step, time=moment, loss=loss, **rates, **usage)


def measured(workspace: Path, what: str) -> dict[str, tuple[float, float]]:
    """CPU seconds and MiB of each part of a task, in this process."""
    from app.actions import shell
    from app.actions.run_choices import newest_run
    from app.actions.runs import comparing, listing
    from app.actions.train import tab
    from app.services import Services

    services = Services(workspace)
    found: dict[str, tuple[float, float]] = {}

    def take(name: str, task: Callable[[], object]) -> None:
        memory, begun = _most_memory(), time.process_time()
        task()
        found[name] = time.process_time() - begun, _most_memory() - memory

    def tick() -> None:
        shell.bar(services, None, "demo")
        shell.steps(services, None, "demo", None)

    if what == "listing":
        take("the Runs page", lambda: listing.listing(services))
        take("the Runs page, again in the same process", lambda: listing.listing(services))
        take("the bar and the steps, every 2 s", tick)
        take("the bar and the steps, again", tick)
        take("a run to choose at the start", lambda: newest_run(services))
        take("a new run", lambda: services.store.create(services.store.all()[0].recipe()))
    elif what == "list":
        from hydralora.cli import main

        take("hydralora runs", lambda: _quiet(main, ["runs", "--json", "--workspace", str(workspace)]))
    elif what == "open":
        take("the Train page", lambda: tab.view(services, LONG))
        take("the Train page, again in the same process", lambda: tab.view(services, LONG))
        take("a new event", lambda: _look_after_an_event(services, tab.view))
        take("compared", lambda: comparing.comparison(services, [LONG, LONG]))
    elif what == "rewind":
        run = services.run(LONG)
        take("before()", run.before)
        take("rewind()", lambda: _rewound(run))
    services.close()
    return found


def _quiet(main: Callable[[], object], arguments: list[str]) -> None:
    from contextlib import redirect_stdout, suppress
    from io import StringIO

    sys.argv = ["hydralora", *arguments]
    with redirect_stdout(StringIO()), suppress(SystemExit):
        main()


def _look_after_an_event(services: "object", view: Callable[..., object]) -> None:
    from app.services import Services

    assert isinstance(services, Services)
    run = services.run(LONG)
    run.add_event(TrainEvent(step=10**6, time=time.time(), loss=1.0))
    run.update(step=10**6)
    view(services, LONG)


def _rewound(run: Run) -> None:
    """As after a checkpoint that all but a few events are before."""
    (run.checkpoints / f"checkpoint-{10**9}").mkdir(parents=True)
    run.rewind()


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


def in_own_process(workspace: Path, what: str) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.workspace", "--measure", what, "--workspace", str(workspace)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    for name, (seconds, memory) in json.loads(done.stdout.splitlines()[-1]).items():
        print(f"  {name:45} {seconds:8.3f} s  {memory:7.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--events-each", type=int, default=300)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--workspace", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measured(chosen.workspace, chosen.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        many, long = Path(folder) / "many", Path(folder) / "long"
        write_runs(many, chosen.runs, chosen.events_each)
        write_runs(long, 1, 10)
        (run,) = RunStore(long).all()
        shutil.move(run.folder, run.folder.with_name(LONG))
        run = Run(run.folder.with_name(LONG))
        run.update(id=LONG)
        write_events(run, chosen.events)
        time.sleep(SETTLED)
        for when in ("first", "again"):
            print(f"{chosen.runs} runs, {when}")
            in_own_process(many, "list")
            in_own_process(many, "listing")
        for when in ("first", "again"):
            size = (run.folder / "events.jsonl").stat().st_size / MEGABYTE
            print(f"{chosen.events:,} events, {size:.0f} MiB, {when}")
            in_own_process(long, "open")
        in_own_process(long, "rewind")


if __name__ == "__main__":
    main()
