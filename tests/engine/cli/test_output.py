"""What a person sees of a run in a terminal: a bar where it is one, plain lines where it isn't."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hydralora.cli.output import following
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import EvalEvent, NoteEvent, TrainEvent
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
    assert f"{STEPS}/{STEPS}" in told
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_says_what_the_run_does(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with following(None) as show:
        show(NoteEvent(step=0, time=0.0, stage=Stage.READING))
        show(NoteEvent(step=0, time=1.0, max_steps=7))
        show(EvalEvent(step=0, time=2.0, split="before [any step]", loss=2.5, exact_match=0.25, rows=8))
        show(TrainEvent(step=3, time=3.0, loss=1.25, tokens_per_second=321.4))
    assert "held out (before [any step]): loss 2.5000, exact match 25.0%" in terminal.getvalue()
    assert "training, loss 1.2500, 321 tokens/s" in terminal.getvalue()
    assert "3/7" in terminal.getvalue()
