"""A study that is run: by ordinary runs, through failed cells and kills, to its report.

HYDRALORA_KILLS and HYDRALORA_SEED set how often it is killed, and when (`make test-faults`).
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from hydralora.cli import app
from hydralora.runs.store import RunStore
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("HYDRALORA_KILLS", "1"))
SEED = int(os.environ.get("HYDRALORA_SEED", "0"))
STUDY = {
    "title": "Mine",
    "question": "Is two better than one?",
    "reference": "one",
    "arms": {
        "one": {"settings": {"method": "lora", "tuner.r": 2}},
        "two": {"settings": {"tuner.num_heads": 2}},
        "none": {"settings": {"tuner.target_modules": ["absent"]}},
    },
    "tune": {"values": [1e-2]},
}


@pytest.fixture
def command(tmp_path: Path, data_file: Path, model_folder: Path) -> Callable[..., list[str]]:
    """The arguments of `hydralora study run` on a file of one's own."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")

    def words(*more: str) -> list[str]:
        paths = [tmp_path / "own.yaml", "--data", data_file, "--model", model_folder, "--workspace", tmp_path / "ws"]
        sizes = ["--seeds", 1, "--steps", 6, "--set", "training.threads=1", "--json"]
        return [*map(str, ("study", "run", *paths, *sizes)), *more]

    return words


def finished(store: RunStore) -> dict[str, str | None]:
    """The finished runs' adapters by their ids."""
    states = {run.id: run.state() for run in store.all()}
    return {run_id: state.adapter_hash for run_id, state in states.items() if state.state == "finished"}


def test_a_study_that_is_killed_again_and_again_is_finished_once(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    store, at = RunStore(tmp_path / "ws"), random.Random(SEED)
    asked = [sys.executable, "-m", "hydralora.cli", *command()]
    planned = json.loads(CliRunner().invoke(app, command("--dry-run")).stdout)
    assert (planned["runs"], planned["left"]) == (6, 6)
    assert store.all() == []  # nothing was started
    before: dict[str, str | None] = {}
    for _ in range(KILLS):
        study = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(store.all)
        with suppress(subprocess.TimeoutExpired):
            study.wait(at.uniform(1, 15))
        _kill_all(tmp_path, study)
        assert before.items() <= finished(store).items()  # what has ended stays as it was
        before = finished(store)
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert before.items() <= finished(store).items()
    report = json.loads(done.stdout)
    _check(report, store)
    again = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=600)
    assert json.loads(again.stdout) == report
    assert len(store.all()) == 3 + 2  # none was run twice


def _check(report: dict[str, Any], store: RunStore) -> None:
    """An arm that fails is named, and the others are compared."""
    assert report["version"] == 1
    assert {tried["arm"] for tried in report["tried"] if tried["measure"] is None} == {"none"}
    assert [line["arm"] for line in report["table"]] == ["one", "two", "base model"]
    lines = {line["arm"]: line for line in report["table"]}
    assert (lines["one"]["versus"], lines["one"]["difference"]) == (None, None)
    assert lines["two"]["versus"] == "one"
    # By the runs' own results
    results = {cell["arm"]: store.get(cell["run"]).state().results for cell in report["cells"]}
    losses = {arm: found.tuned.loss for arm, found in results.items() if found and found.tuned and found.tuned.loss}
    assert lines["two"]["difference"]["mean"] == pytest.approx(losses["two"] - losses["one"])
    assert lines["two"]["difference"]["low"] < lines["two"]["difference"]["mean"] < lines["two"]["difference"]["high"]
    assert lines["two"]["difference"]["verdict"] == "can't tell"  # one seed
    assert lines["one"]["measures"]["loss"] == {"mean": pytest.approx(losses["one"]), "sd": None, "n": 1}
    assert lines["one"]["chosen"] == 1e-2
    assert lines["base model"]["difference"] is None
    base = {found.base.loss for found in results.values() if found and found.base}  # measured before every run, alike
    assert {lines["base model"]["measures"]["loss"]["mean"]} == base
    assert set(lines["base model"]["measures"]) == {"loss", "exact_match"}
    for cell in report["cells"]:
        assert store.get(cell["run"]).label().name == f"own: {cell['arm']}, seed 0"
    assert report["verdict"].startswith("No arm's loss (nats per token) can be told apart from that of one; two is")
    assert "95 % interval" in report["verdict"]
    assert report["verdict"].endswith(", too few seeds for a test).")
    assert "none" not in report["settings"]


def _kill_all(folder: Path, study: subprocess.Popen[bytes]) -> None:
    """The study and its run, with all that they started."""
    study.kill()
    study.wait()
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(str(folder) in word for word in process.info["cmdline"] or ()):
            process.kill()
