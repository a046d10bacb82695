"""Runs whose heads or gates are given from outside: what decides whether routing pays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hydralora import ConfigError, RunStore, train
from hydralora.errors import DatasetError
from hydralora.inference.on_files import evaluate_run
from hydralora.recipe.reading import parse_recipe, with_settings
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import NoteEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.results import RunResults
from hydralora.runs.state import Stage
from hydralora.training.monitor import Monitor
from hydralora.training.preparation import Prepared, prepare
from tests.known import known, loss_of

TASKS = ("backwards", "copy", "upper")


@pytest.fixture
def recipe(tmp_path: Path, model_folder: Path) -> Recipe:
    """48 rows of three tasks on the same words."""
    words = [f"w{i}" for i in range(16)]
    answers: dict[str, Callable[[str], str]] = {
        "backwards": lambda word: word[::-1],
        "copy": lambda word: word,
        "upper": lambda word: word.upper(),
    }
    rows = [
        {"instruction": f"{task} please", "input": word, "output": answers[task](word), "task": task}
        for word in words
        for task in TASKS
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {"model": str(model_folder), "data": {"train": str(tmp_path / "rows.jsonl"), "eval_fraction": 0.25}}
    training = {"max_steps": 3, "batch_size": 4, "eval_every": 0, "sample_prompts": 0, "snapshots": 0, "threads": 1}
    return parse_recipe(values | {"tuner": {"r": 2}, "training": training})


def changed(recipe: Recipe, **settings: Any) -> Recipe:
    return parse_recipe(
        with_settings(recipe.model_dump(), {key.replace("__", "."): value for key, value in settings.items()})
    )


def prepared(recipe: Recipe) -> Prepared:
    return prepare(recipe, lambda stage: None)


def trained(recipe: Recipe, folder: Path) -> RunResults:
    return train(recipe, folder)


def test_the_tasks_are_the_components(recipe: Recipe) -> None:
    found = prepared(changed(recipe, components__labels="tasks"))
    assert found.k == 3
    assert [component.name for component in found.components] == sorted(TASKS)
    assert [sorted(TASKS)[label] for label in found.train_labels] == [row.example.task for row in found.train]
    assert [sorted(TASKS)[label] for label in found.heldout_labels] == [row.example.task for row in found.heldout]


def test_shuffled_components_are_as_large_as_those_found(recipe: Recipe) -> None:
    three = changed(recipe, components__k=3)
    found, shuffled = (prepared(changed(three, components__labels=labels)) for labels in ("found", "shuffled"))
    assert shuffled.sizes == found.sizes
    assert shuffled.train_labels != found.train_labels
    again = prepared(changed(three, components__labels="shuffled"))
    assert again.train_labels == shuffled.train_labels


def test_an_oracles_gates_are_each_rows_task(recipe: Recipe, tmp_path: Path) -> None:
    results = trained(changed(recipe, method="oracle", components__labels="tasks"), tmp_path / "out")
    assert results.mutual_information == pytest.approx(1, abs=1e-3)
    assert results.parameters is not None
    assert results.parameters.router == 0
    for i, row in enumerate(results.component_by_head or []):
        assert row == pytest.approx([float(i == head) for head in range(3)], abs=1e-3)


def test_lorahub_mixes_what_was_trained_on_each_component(recipe: Recipe, tmp_path: Path) -> None:
    asked = changed(recipe, method="lorahub", components__labels="tasks")
    events: list[Any] = []
    results = train(asked, tmp_path / "out", Monitor(events.append))
    assert results.tuned is not None
    assert results.mutual_information == pytest.approx(1, abs=1e-3)
    stages = [event.stage for event in events if isinstance(event, NoteEvent) and event.stage]
    assert stages[-3:] == [Stage.MIXING, Stage.EVALUATING_TUNED, Stage.MEASURING_HEADS]
    split = trained(changed(asked, method="oracle"), tmp_path / "oracle")
    assert results.parameters is not None
    assert split.parameters is not None
    assert results.parameters.total > split.parameters.total  # each head has its own A


@pytest.mark.slow
@pytest.mark.parametrize("method", ["oracle", "lorahub"])
def test_rows_of_a_file_are_told_their_heads_too(recipe: Recipe, tmp_path: Path, method: str) -> None:
    jobs = JobManager(RunStore(tmp_path / "workspace"))
    other = tmp_path / "other.jsonl"
    other.write_text(Path(recipe.data.train_files[0]).read_text(encoding="utf-8").replace('"w', '"v'), encoding="utf-8")
    run = jobs.start(changed(recipe, method=method, data__eval=str(other), training__learning_rate=0.05))
    state = jobs.follow(run)
    assert state.state == "finished", (state.message, run.log.read_text(encoding="utf-8"))
    results = known(state.results)
    assert loss_of(results.base) != loss_of(results.tuned)
    assert loss_of(evaluate_run(run, other)) == pytest.approx(loss_of(results.tuned), abs=1e-6)


def test_lorahub_says_what_it_needs(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydralora.tuner.mixtures.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs nevergrad.*pip install \.\[lorahub\]"):
        trained(changed(recipe, method="lorahub"), tmp_path / "out")


def test_a_frozen_router_ends_as_it_starts(recipe: Recipe, tmp_path: Path) -> None:
    frozen = changed(recipe, tuner__train_router=False)
    model = prepared(frozen).model
    start = {name: value.clone() for name, value in model.named_parameters() if "hydra_router" in name}
    results = trained(frozen, tmp_path / "out")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert start
    for name, value in start.items():
        assert saved[name.replace(".default", "")].equal(value)
    assert results.parameters is not None
    assert results.parameters.router == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"tuner__router_scope": "row"},
        {"tuner__gate_information": 0.5},
        {"tuner__cores": True},
        {"tuner__router": "cosine"},
        {"tuner__head_init": "components"},
    ],
    ids=str,
)
def test_each_option_trains_and_loads_again(recipe: Recipe, tmp_path: Path, settings: dict[str, Any]) -> None:
    results = trained(changed(recipe, **settings), tmp_path / "out")
    assert results.tuned is not None
    assert results.base is not None
    again = trained(
        changed(
            recipe, **settings, start_from=str(tmp_path / "out"), tuner__num_heads=results.k, training__max_steps=1
        ),
        tmp_path / "again",
    )
    assert again.tuned is not None


def test_what_does_not_fit_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r"gradient_checkpointing.*oracle"):
        changed(recipe, method="oracle", training__gradient_checkpointing=True)
    with pytest.raises(ConfigError, match=r"gradient_checkpointing.*router_scope=row"):
        changed(recipe, tuner__router_scope="row", training__gradient_checkpointing=True)
    with pytest.raises(ConfigError, match=r"have 3, but tuner\.num_heads is 4"):
        prepared(changed(recipe, components__labels="tasks", tuner__num_heads=4))
    with pytest.raises(DatasetError, match="task"):
        prepared(changed(recipe, components__labels="tasks", data__task_column="input2"))
