"""The experiment on router starts: each start and run once, on a tiny model; an unfinished report is gone on with."""

import json
from pathlib import Path
from typing import Any

import pytest

from hydralora import ConfigError
from hydralora.experiments import router_init
from hydralora.experiments.router_init import RUNS, STARTS, router_init_table, run_router_init
from hydralora.runs.events import Event, NoteEvent

QUICK = {"batch_size": 4, "threads": 1, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def report(data_file: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("report")
    found = run_router_init(data_file, out, seeds=1, steps=4, model=str(model_folder), training=QUICK)
    return found | {"out": out}


def test_every_start_and_run_is_measured(report: dict[str, Any]) -> None:
    lines = {(line["kind"], line["name"]): line for line in report["table"]}
    assert set(lines) == {("start", start.name) for start in STARTS} | {("run", name) for name in RUNS}
    for (kind, name), line in lines.items():
        if kind == "run":
            assert line["loss"]["mean"] > 0
        if not name.startswith("LoRA"):
            assert 0 <= line["mutual_information"]["mean"] <= 1
    assert lines["start", "default"] != lines["start", "random"]
    shown = router_init_table(report)
    assert all(name in shown for name in RUNS)


def test_the_lora_is_of_equal_size(report: dict[str, Any]) -> None:
    lora, ours = (report["cells"][f"run | {name} | seed 0"] for name in ("LoRA of equal size", "components"))
    assert 0 <= lora["parameters"] - ours["parameters"] < lora["parameters"] / lora["r"]


def test_a_start_leaves_nothing_behind_for_the_next(
    report: dict[str, Any], data_file: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = next(start for start in STARTS if start.name == "shrinkage 10")
    monkeypatch.setattr(router_init, "STARTS", (last,))
    monkeypatch.setattr(router_init, "RUNS", {})
    alone = run_router_init(data_file, tmp_path, seeds=1, steps=4, model=str(model_folder), training=QUICK)
    assert alone["cells"] == {key: report["cells"][key] for key in alone["cells"]}


def test_an_unfinished_report_is_gone_on_with(
    report: dict[str, Any], data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    saved = json.loads((report["out"] / "report.json").read_text(encoding="utf-8"))
    assert saved["cells"] == report["cells"]
    marked = {key: cell | {"loss": 7.0} for key, cell in saved["cells"].items()}
    del marked["run | components, latent | seed 0"]
    (tmp_path / "report.json").write_text(json.dumps(saved | {"cells": marked}), encoding="utf-8")
    done: list[Event] = []
    run_router_init(
        data_file,
        tmp_path,
        seeds=1,
        steps=4,
        model=str(model_folder),
        training=QUICK,
        on_event=done.append,
    )
    messages = [event.message or "" for event in done if isinstance(event, NoteEvent)]
    assert [message for message in messages if " | " in message] == ["run | components, latent | seed 0"]
    with pytest.raises(ConfigError, match="other settings"):
        run_router_init(data_file, tmp_path, seeds=1, steps=5, model=str(model_folder), training=QUICK)


def test_unknown_runs_are_refused(data_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run 'magic'.*components"):
        run_router_init(data_file, tmp_path, only=["magic"])
