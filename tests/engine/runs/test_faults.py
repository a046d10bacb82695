"""A run whose worker, and the app that started it, are killed again and again; and one whose disk is full.

HYDRALORA_KILLS and HYDRALORA_SEED set how often, and when (`make test-faults`).
"""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from hydralora import RunStore
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import training_losses
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.state import ACTIVE, Stage
from tests.known import known
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("HYDRALORA_KILLS", "3"))
SEED = int(os.environ.get("HYDRALORA_SEED", "0"))
STEPS, SAVE_EVERY = 120 * KILLS, 20
SERVER = """
import sys, time
from pathlib import Path
from app.services import Services
services = Services(Path(sys.argv[1]))
services.keep_queue()
time.sleep(3600)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "workspace"
    for process in belonging(tmp_path):
        process.kill()


def belonging(folder: Path) -> list[psutil.Process]:
    """Processes that name a folder in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(str(folder) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def serve(workspace: Path) -> subprocess.Popen[bytes]:
    """What the app does for runs, in a process of its own; runs go on while it starts."""
    return subprocess.Popen([sys.executable, "-c", SERVER, str(workspace)])


def _reached(run: Run, step: float) -> bool:
    state = run.state()
    return state.step >= step or state.state not in ACTIVE


def losses(run: Run) -> list[tuple[int, float]]:
    return training_losses(run.events())


def assert_readable(folder: Path) -> None:
    """Every file but those of a checkpoint whose writing was interrupted: nobody reads them."""
    for path in folder.rglob("*"):
        if any(part.startswith(".building") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            load_file(path)


def test_killed_again_and_again_a_run_loses_no_more_than_an_interval(
    workspace: Path, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe(max_steps=STEPS, save_every=SAVE_EVERY, eval_every=0, log_every=2)
    store = RunStore(workspace)
    jobs = JobManager(store)
    whole = jobs.start(recipe)
    assert jobs.follow(whole).state == "finished"
    chance = random.Random(SEED)
    run, server = jobs.start(recipe), serve(workspace)
    interrupted = 0
    for kill in range(KILLS):
        target = (kill + 0.7 * chance.random()) * STEPS / KILLS  # not so late that it ends first
        wait_until(partial(_reached, run, target))
        victims = chance.choice(("worker", "app", "both"))
        if victims != "app":
            os.kill(known(run.state().pid), signal.SIGKILL)
        if victims != "worker":
            server.kill()
            server.wait()
        if victims != "app":
            wait_until(lambda: JobManager(store).refresh(run).state == "interrupted")
            state = run.state()
            kept = (run.newest_checkpoint() or (0,))[0]
            assert state.step - kept <= SAVE_EVERY, state.message
            assert f"at step {state.step} of {STEPS}" in state.message
            assert_readable(run.folder)
            interrupted += 1
            jobs.resume(run)
        if victims != "worker":
            server = serve(workspace)
    assert jobs.follow(run).state == "finished", run.log.read_text(encoding="utf-8")
    server.kill()
    server.wait()
    assert interrupted
    ours, theirs = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert losses(run) == losses(whole)
    assert_readable(run.folder)
    wait_until(lambda: belonging(workspace) == [])


def test_a_full_disk_fails_the_run_with_a_sentence_and_keeps_what_was_saved(
    workspace: Path, make_recipe: Callable[..., Recipe]
) -> None:
    """A limit on the size of a file stands in for a full disk: the system refuses the write in the same way."""
    run = RunStore(workspace).create(make_recipe(max_steps=12, save_every=4))
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from hydralora.runs import checkpoints
        from hydralora.training import trainer, worker
        put = checkpoints.put_in_place
        def full_after_the_first(folder, step, keep, loss=None):
            put(folder, step, keep)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        checkpoints.put_in_place = full_after_the_first
        trainer.put_in_place = full_after_the_first
        sys.argv = ["worker", sys.argv[1]]
        raise SystemExit(worker.main())
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(run.folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    state = run.state()
    assert state.state == "failed"
    assert "probably because the disk is full" in state.message, state.message
    assert (run.newest_checkpoint() or (0,))[0] == 4
    assert_readable(run.folder)
    jobs = JobManager(RunStore(workspace))
    assert jobs.resume(run) == 4
    assert jobs.follow(run).state == "finished"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_size": 16}, "Try training.batch_size=8 with training.gradient_accumulation=2"),
        (
            {"batch_size": 5, "gradient_accumulation": 2},
            "Try training.batch_size=2 with training.gradient_accumulation=5",
        ),
        ({"batch_size": 1}, "Try training.gradient_checkpointing=true"),
        ({"batch_size": 1, "gradient_checkpointing": True, "max_length": 200}, "Try training.max_length=100"),
    ],
)
def test_too_little_memory_is_said_with_a_next_step(
    settings: dict[str, Any], told: str, workspace: Path, make_recipe: Callable[..., Recipe]
) -> None:
    from hydralora.training.worker import _sentence

    run = RunStore(workspace).create(make_recipe(**settings))
    run.update(stage=Stage.TRAINING)
    for error in (RuntimeError("DefaultCPUAllocator: can't allocate memory: 12 bytes"), MemoryError()):
        assert told in _sentence(error, run)
        assert " GB of this machine" in _sentence(error, run)
    run.update(stage=Stage.LOADING)
    assert "while loading the base model" in _sentence(MemoryError(), run)
    assert "Try a smaller base model" in _sentence(MemoryError(), run)


def test_memory_runs_out_for_real(workspace: Path, make_recipe: Callable[..., Recipe]) -> None:
    run = RunStore(workspace).create(make_recipe(max_steps=4))
    script = textwrap.dedent(
        """
        import resource, sys, torch
        from hydralora.training import run, worker
        def greedy(*given, **named):
            limit = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (2**36, limit[1]))
            torch.empty(2**38)
        run._trainer = greedy
        sys.argv = ["worker", sys.argv[1]]
        raise SystemExit(worker.main())
        """
    )
    subprocess.run([sys.executable, "-c", script, str(run.folder)], capture_output=True, text=True, check=False)
    told = run.state().message
    assert told.startswith("Not enough memory while training, in batches of 4 rows; it had used ")
    assert "Try training.batch_size=2" in told


def test_where_nothing_can_be_written_a_death_is_seen_all_the_same(
    workspace: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunStore(workspace).create(make_recipe())
    run.update(state="training", pid=2**22 + 1)
    monkeypatch.setattr("hydralora.runs.run.write_json", _full)
    assert JobManager(RunStore(workspace)).refresh(run).state == "interrupted"
    assert run.state().state == "training"


def _full(path: Path, value: Any) -> None:
    raise OSError(28, "No space left on device", str(path))
