"""The main job on the real base model: minutes on a CPU. It uses the user's model cache."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STEPS = 60  # of the demo's 100: enough for all that is asserted here

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def hydralora(environment: dict[str, str], *arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "hydralora.cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def report(out: Path, user_environment: dict[str, str]) -> dict[str, Any]:
    return hydralora(user_environment, "demo", "--out", out, "--steps", str(STEPS))


def test_the_report_is_whole(report: dict[str, Any], out: Path) -> None:
    keys = {
        "version", "rows", "k", "sizes", "ari", "base", "tuned", "seconds", "parameters", "adapter",
        "component_by_head", "base_model",
    }  # fmt: skip
    assert keys <= set(report)
    assert report == json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert set(report["base_model"]) == {"id", "source", "hash"}
    for scores in (report["base"], report["tuned"]):
        assert {"loss", "exact_match", "per_task"} <= set(scores)
        assert len(scores["per_task"]) == 4
    assert (Path(report["adapter"]) / "adapter_model.safetensors").exists()
    assert sum(report["seconds"].values()) > 0


def test_the_components_are_the_skills(report: dict[str, Any]) -> None:
    assert report["k"] == 4
    assert report["ari"] >= 0.8
    assert sum(report["sizes"]) == report["rows"]["train"]


def test_it_learns_every_skill(report: dict[str, Any]) -> None:
    base, tuned = report["base"], report["tuned"]
    assert tuned["exact_match"] - base["exact_match"] >= 0.5
    assert tuned["loss"] <= base["loss"] / 4
    assert {
        task: scores["exact_match"] for task, scores in tuned["per_task"].items() if scores["exact_match"] < 0.5
    } == {}


def test_every_component_has_its_own_head(report: dict[str, Any]) -> None:
    use = report["component_by_head"]
    assert [len(gates) for gates in use] == [4] * 4
    assert all(sum(gates) == pytest.approx(1, abs=1e-4) for gates in use)
    assert min(use[i][i] for i in range(4)) >= 0.4


def test_the_tuned_model_answers_with_its_gates(
    report: dict[str, Any], out: Path, user_environment: dict[str, str]
) -> None:
    prompt = "Calculate the sum and answer with the number.\n\n21 plus 14"
    answer = hydralora(user_environment, "chat", out / "runs" / report["run"], "--prompt", prompt)
    assert answer["text"].strip().isdigit()
    assert answer["adapter_hash"] == report["adapter_hash"]
    for token in answer["tokens"]:
        assert len(token["gates"]) == len(answer["modules"])
        assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in token["gates"])


def test_its_matrices_are_projected(report: dict[str, Any], out: Path, user_environment: dict[str, str]) -> None:
    found = hydralora(user_environment, "analyze", report["run"], "--workspace", out, "--method", "pca")
    points = [point for group in found["groups"] for point in group["points"]]
    assert len(points) == 90 * (1 + 4)  # 30 blocks of 3 adapted layers, one A and four heads in each
    assert {point["kind"] for point in points} == {"A", "head"}
    values = found["similarity"][report["run"]].values()
    assert sum(values) / len(values) < 0.9  # heads that were started alike stay at .93
