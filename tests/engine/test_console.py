"""What a person sees of a run in a terminal: a bar where it is one, plain lines where it isn't."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hydralora.recipe import Recipe

STEPS = 6


@pytest.fixture
def command(make_recipe: Callable[..., Recipe], tmp_path: Path) -> list[str]:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(make_recipe(max_steps=STEPS, eval_every=3).model_dump()), encoding="utf-8")
    return [sys.executable, "-m", "hydralora.cli", "train", str(file), "--follow", "--workspace", str(tmp_path)]


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
    assert "training, loss" in told
    assert "\x1b[" in told  # it is drawn in one place
    assert told.count("held out (") == 2
    assert "finished" in answer
    assert "\x1b" not in answer


def test_elsewhere_a_run_is_plain_lines(command: list[str], user_environment: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=user_environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert sum(line.startswith("step ") for line in done.stderr.splitlines()) == STEPS
