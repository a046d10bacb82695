"""Two machines share a workspace: each takes waiting runs, and each run is done once."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hydralora import RunStore
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import NoteEvent
from hydralora.runs.state import ACTIVE
from hydralora.runs.store import Queue
from hydralora.training.monitor import TRAINING_STARTS
from tests.waiting import wait_until

HOSTS = ("one", "two")
AS_HOST = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"']  # a process with a host name of its own


def why_no_hosts() -> str:
    if not shutil.which("unshare"):
        return "unshare is not installed"
    done = subprocess.run([*AS_HOST, "one", "hostname"], capture_output=True, text=True, check=False)
    return "" if done.stdout.strip() == "one" else "a process can't be given another host name here"


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts())]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def machines(workspace: Path) -> Iterator[Callable[[], list[subprocess.Popen[str]]]]:
    """Starts `hydralora work` on both."""
    begun: list[subprocess.Popen[str]] = []

    def start() -> list[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "hydralora.cli", "work", "--slots", "1", "--until-empty", "--json"]
        for host in HOSTS:
            working = [*AS_HOST, host, *command, "--workspace", str(workspace)]
            begun.append(subprocess.Popen(working, stdout=subprocess.PIPE, text=True))
        return begun

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_two_machines_share_a_queue(
    workspace: Path, make_recipe: Callable[..., Recipe], machines: Callable[[], list[subprocess.Popen[str]]]
) -> None:
    store = RunStore(workspace)
    runs = [store.create(make_recipe(max_steps=8, eval_every=0)) for _ in range(6)]
    store.write_queue(Queue(slots=1, waiting=[run.id for run in runs]))
    most: Counter[str] = Counter()
    working = machines()

    def all_done() -> bool:
        states = [run.state() for run in runs]
        at_once = Counter(state.host for state in states if state.host and state.state in ACTIVE)
        for host, count in at_once.items():
            most[host] = max(most[host], count)
        return all(state.state == "finished" for state in states)

    wait_until(all_done, 240)
    started = [json.loads(process.communicate()[0])["started"] for process in working]
    assert most == dict.fromkeys(HOSTS, 1)
    assert all(started)
    for run in runs:
        notes = [event.message for event in run.events() if isinstance(event, NoteEvent)]
        assert notes.count(TRAINING_STARTS) == 1
