"""A workspace of many runs: each file is read once, and what was kept of a run never outlives it."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.actions import shell
from app.actions.run_choices import newest_run, run_choices
from app.actions.runs import listing
from app.services import Services, curves
from hydralora.files import cache as file_cache
from hydralora.recipe import reading
from hydralora.recipe.settings import Recipe
from hydralora.runs import run as run_folder
from hydralora.runs.events import TrainEvent
from hydralora.runs.run import Run
from hydralora.runs.store import RunStore

RUNS = 12
HOSTILE: tuple[Any, ...] = (None, "", -1, 10**30, 1.5, True, [], {}, [[1]], {"a": 1}, {"../x": [[1, 2, 3, 4], []]})


@pytest.fixture
def workspace(tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Finished runs, whose files count as unchanged at once."""
    monkeypatch.setattr(file_cache, "SETTLED", -1.0)
    store = RunStore(tmp_path)
    for i in range(RUNS):
        run = store.create(make_recipe())
        run.update(state="finished")
        for step in range(100):
            run.add_event(TrainEvent(step=step, time=float(step), loss=float(step + i)))
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind of file is opened."""
    counted: Counter[str] = Counter()
    real = Path.open

    def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
        counted[path.name] += 1
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    return counted


def listed(workspace: Path) -> dict[str, list[float]]:
    """Each run's small curve, as an app that has just started lists it."""
    services = Services(workspace)
    try:
        return {row.id: row.curve for row in listing.listing(services).rows}
    finally:
        services.close()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process, nothing is in memory."""
    for files in (run_folder._STATES, run_folder._LABELS, reading._YAML):
        monkeypatch.setattr(files, "_parsed", {})


def test_each_file_is_read_once(workspace: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)
    services = Services(workspace)
    try:
        listing.listing(services)
        names = ("state.json", "label.json", "recipe.yaml", "events.jsonl")
        assert all(reads[name] <= RUNS for name in names), reads
        reads.clear()
        listing.listing(services)
        shell.bar(services, None, "demo")
        shell.steps(services, None, "demo", None)
        run_choices(services)
        newest_run(services)
        assert not any(reads[name] for name in names), reads
    finally:
        services.close()


def test_an_app_that_starts_reads_no_events(workspace: Path, reads: Counter[str]) -> None:
    first = listed(workspace)
    assert all(len(curve) == 34 for curve in first.values())
    assert sorted(curve[-1] for curve in first.values()) == [99.0 + i for i in range(RUNS)]
    reads.clear()
    assert listed(workspace) == first
    assert reads["events.jsonl"] == 0


def test_a_curve_follows_its_events(workspace: Path) -> None:
    listed(workspace)
    run, other = RunStore(workspace).all()[:2]
    run.add_event(TrainEvent(step=100, time=100.0, loss=7.5))
    shutil.copyfile(run.events_file, other.events_file)
    found = listed(workspace)
    assert (found[run.id][-1], found[other.id][-1]) == (7.5, 7.5)
    run.rewind()
    assert listed(workspace)[run.id] == found[run.id][:1]
    run.events_file.unlink()
    assert listed(workspace)[run.id] == []
    RunStore(workspace).delete(run)
    assert run.id not in listed(workspace)
    stored = json.loads((workspace / "runs" / curves.FILE).read_text(encoding="utf-8"))
    assert other.id in stored["curves"]


def wrong(text: str) -> Iterator[str]:
    yield from ("", "{", "[" * 50_000, "null", "[]", "\0", "9" * 5000, text[:-3])
    values = json.loads(text)
    yield from (json.dumps(values | {key: value}) for key in values for value in HOSTILE)
    run_id, (status, curve) = next(iter(values["curves"].items()))
    for value in HOSTILE:
        yield json.dumps(values | {"curves": values["curves"] | {run_id: value}})
        yield json.dumps(values | {"curves": values["curves"] | {run_id: [value, curve]}})
        yield json.dumps(values | {"curves": values["curves"] | {run_id: [status, [value]]}})
    yield json.dumps(values | {"curves": {run_id: [status, [1.0] * 10_000]}})
    yield json.dumps(values | {"version": 2})


def test_what_is_wrong_with_the_kept_curves_makes_no_difference(workspace: Path) -> None:
    first = listed(workspace)
    file = workspace / "runs" / curves.FILE
    for text in wrong(file.read_text(encoding="utf-8")):
        file.write_text(text, encoding="utf-8")
        assert listed(workspace) == first, text[:200]
    file.unlink()
    file.mkdir()
    assert listed(workspace) == first


def test_a_workspace_that_is_read_only_is_listed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, value: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(curves, "write_json", refuse)
    assert len(listed(workspace)) == RUNS
    assert not (workspace / "runs" / curves.FILE).exists()


def test_a_loss_that_is_no_number_is_shown_and_not_kept(workspace: Path) -> None:
    run = RunStore(workspace).all()[0]
    run.events_file.write_text('{"step": 1, "time": 1, "kind": "train", "loss": Infinity}\n', encoding="utf-8")
    for _ in range(2):
        assert listed(workspace)[run.id] == [float("inf")]
    stored = json.loads((workspace / "runs" / curves.FILE).read_text(encoding="utf-8"))
    assert len(stored["curves"]) == RUNS - 1


def test_a_changed_recipe_is_read_and_a_copy_given(workspace: Path) -> None:
    run = Run(RunStore(workspace).all()[0].folder)
    first = run.recipe()
    first.tuner.num_heads = 5
    first.data.train = "other.jsonl"
    assert run.recipe().tuner.num_heads == 3
    assert run.recipe().data.train != "other.jsonl"
    values = run.recipe().model_dump() | {"launch": {"slurm": {"exclude": ["a"]}}}
    values["tuner"]["num_heads"] = 4
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert run.recipe().tuner.num_heads == 4
    for _ in range(2):
        slurm = run.recipe().launch.slurm
        assert slurm == {"exclude": ["a"]}
        slurm["exclude"].append("b")
