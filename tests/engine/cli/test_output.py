"""What a person sees of a run in a terminal: a bar where it is one, plain lines where it isn't."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hydralora.cli import output
from hydralora.cli.output import following
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import EvalEvent, NoteEvent, TrainEvent
from hydralora.runs.phases import RunProgress
from hydralora.runs.state import Stage

STEPS = 6


@pytest.fixture
def command(make_recipe: Callable[..., Recipe], tmp_path: Path) -> list[str]:
    file = tmp_path / "recipe.yaml"
    recipe = make_recipe(max_steps=STEPS, eval_every=3, log_every=1)
    file.write_text(yaml.safe_dump(recipe.model_dump()), encoding="utf-8")
    return [sys.executable, "-m", "hydralora.cli", "train", str(file), "--follow", "--workspace", str(tmp_path)]


@pytest.mark.slow
def test_in_a_terminal_a_run_is_a_bar(command: list[str], user_environment: dict[str, str]) -> None:
    pty = pytest.importorskip("pty")
    mine, its = pty.openpty()
    environment = user_environment | {"TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its, env=environment, text=True)
    os.close(its)
    shown = b""
    try:
        while piece := os.read(mine, 4096):
            shown += piece
    except OSError:  # the other end is closed
        pass
    answer, _ = process.communicate()
    told = shown.decode()
    assert process.returncode == 0, told
    assert "Phase 1 of 9, starting" in told
    assert "100%" in told
    assert "\x1b[" in told  # it is drawn in one place
    assert told.count("held out (") == 3  # before, in between and after
    assert "finished" in answer
    assert "\x1b" not in answer


@pytest.mark.slow
def test_elsewhere_a_run_is_plain_lines(command: list[str], user_environment: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=user_environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert sum(line.startswith("step ") for line in done.stderr.splitlines()) == STEPS
    assert "Phase 1 of 9, starting." in done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_says_what_the_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    training = RunProgress(7, 9, "training", "steps", 3, 7, 100.0, 0.4)
    with following() as view:
        view.on_progress(RunProgress(2, 9, "reading the data", "rows", None, None, None, 0.1))
        view.on_event(NoteEvent(step=0, time=0.0, stage=Stage.TRAINING))
        view.on_event(EvalEvent(step=0, time=2.0, split="before [any step]", loss=2.5, exact_match=0.25, rows=8))
        view.on_event(TrainEvent(step=3, time=3.0, loss=1.25, tokens_per_second=321.4))
        view.on_progress(training)
    assert "held out (before [any step]): loss 2.5000, exact match 25.0%" in terminal.getvalue()
    assert "Phase 7 of 9, training: 3 of 7 steps, about 2 min left, loss 1.2500, 321 tokens/s" in terminal.getvalue()
    assert "40%" in terminal.getvalue()


def test_a_phase_is_a_line_and_its_progress_another_one_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "PHASE_SECONDS", 0.0)
    phases = [RunProgress(6, 9, "evaluating the base model", "rows", done, 80, None, 0.2) for done in (0, 0, 40)]
    with following() as view:
        for phase in phases:
            view.on_progress(phase)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"Phase 6 of 9, evaluating the base model: {done} of 80 rows." for done in (0, 40)]
