"""The shipped run on the real base model: it answers as its saved answers say, and scores as its results say.

It uses the user's model cache.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import pytest

from hydralora import RunStore
from hydralora.data.demo import demo_file
from hydralora.inference.traces import TraceToken, load_trace
from hydralora.runs.records import Record
from hydralora.runs.run import Run
from hydralora.runs.scores import Scores
from hydralora.runs.shipped import restore_shipped_run
from tests.known import known, loss_of

Kind = TypeVar("Kind", bound=Record)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return restore_shipped_run(RunStore(tmp_path_factory.mktemp("workspace")))


class Answer(Record):
    """What `hydralora chat` prints."""

    text: str
    modules: list[str]
    adapter_hash: str
    tokens: list[TraceToken]


class Export(Record):
    """What `hydralora export` prints: its divergence from the run, in nats per token."""

    difference: float


def printed(kind: type[Kind], environment: dict[str, str], *arguments: str | Path) -> Kind:
    """What a command prints with --json."""
    command = [sys.executable, "-m", "hydralora.cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return kind.model_validate_json(done.stdout)


@pytest.mark.parametrize("name", ["1-router", "2-router", "1-head-4"])
def test_an_answer_is_the_saved_one(shipped: Run, user_environment: dict[str, str], name: str) -> None:
    saved = load_trace(shipped.answers / f"{name}.json")
    pin = ["--pin", str(saved.steering["pin"])] if saved.steering else []
    prompt = ("--prompt", saved.messages[-1].content, "--max-new-tokens", str(saved.sampling.max_new_tokens))
    answer = printed(Answer, user_environment, "chat", shipped.folder, *prompt, *pin)
    assert answer.adapter_hash == saved.adapter_hash
    assert answer.text == saved.text
    assert answer.modules == saved.modules
    for token, same in zip(answer.tokens, saved.tokens, strict=True):
        for gates, as_saved in zip(token.gates, same.gates, strict=True):
            assert gates == pytest.approx(as_saved, abs=0.05)


def test_its_scores_are_those_of_its_results(shipped: Run, user_environment: dict[str, str], tmp_path: Path) -> None:
    """On the task whose answers are right least often; all four take eight times as long."""
    tuned, tasks = known(known(shipped.state().results).tuned), {"arithmetic"}
    lines = demo_file("heldout").read_text(encoding="utf-8").splitlines(keepends=True)
    rows = tmp_path / "arithmetic.jsonl"
    rows.write_text("".join(line for line in lines if json.loads(line)["task"] in tasks), encoding="utf-8")
    scores = printed(Scores, user_environment, "evaluate", shipped.folder, "--data", rows)
    assert set(scores.per_task) == tasks
    for task, score in scores.per_task.items():
        assert loss_of(score) == pytest.approx(loss_of(tuned.per_task[task]), rel=0.05)
        assert score.exact_match == pytest.approx(tuned.per_task[task].exact_match, abs=0.06)


def test_it_is_exported_and_read_back(shipped: Run, user_environment: dict[str, str], tmp_path: Path) -> None:
    exported = printed(Export, user_environment, "export", shipped.folder, "--out", tmp_path / "run.zip")
    assert exported.difference == pytest.approx(0, abs=1e-5)
