"""Every setting of a recipe does something: changed from its default, a run or its launch is another one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hydralora import HydraError
from hydralora.inference import benchmarks
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.recipe.without_effect import without_effect
from hydralora.runs.cluster import submit
from hydralora.runs.commands import job_command
from hydralora.runs.events import Event, NoteEvent, TrainEvent
from hydralora.runs.run import Run
from hydralora.training.monitor import Monitor
from hydralora.training.run import OutputFolders, train
from hydralora.training.trainer import training_arguments
from tests.benchmark_tasks import write_tasks
from tests.tiny_model import write_tiny_model

WORDS = ("plum", "saw", "red", "nine", "the fox", "oak")
P_TUNING = {"method": "p-tuning", "tuner.r": None, "tuner.lora_dropout": 0.5, "tuner.target_modules": ["q_proj"]}
IA3 = {"method": "ia3", "tuner.r": None, "tuner.lora_alpha": 3, "tuner.layers_to_transform": [1]}
DROP = {"training.max_steps": None}  # of the baseline, for settings that exclude it

# A setting's value that isn't its default, and the other settings with which it can be seen.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "model": ("other", {}),
    "method": ("lora", {}),
    "start_from": ("nowhere", {}),
    "quantization": ("nf4", {}),
    "data.train": ("fewer.jsonl", {}),
    "data.eval": ("heldout.jsonl", {}),
    "data.mapping": ("mapping.yaml", {}),
    "data.task_column": ("kind", {}),
    "data.eval_fraction": (0.4, {}),
    "data.stratify": ("component", {}),
    "data.control_tokens": ("drop", {}),
    "components.method": ("dbscan", {}),
    "components.features": ("model", {}),
    "components.sentence_model": ("nowhere", {"components.features": "sentence"}),
    "components.text": ("everything", {}),
    "components.language": ("en", {}),
    "components.k": (2, {}),
    "components.seed": (5, {"components.k": 4, "tuner.num_heads": 4, "components.text": "everything"}),
    "components.names": (["a", "b", "c"], {"components.k": 3}),
    "components.labels": ("tasks", {}),
    "components.only": (1, {"tuner.router_init": "random", "tuner.num_heads": 2}),
    "tuner.r": (5, {}),
    "tuner.num_heads": (2, {}),
    "tuner.lora_alpha": (3, {}),
    "tuner.use_rslora": (True, {}),
    "tuner.lora_dropout": (0.5, {}),
    "tuner.router_input": ("latent", {}),
    "tuner.router_init": ("random", {}),
    "tuner.router_entropy": (0.9, {}),
    "tuner.router_bias": (False, {}),
    "tuner.router": ("cosine", {}),
    "tuner.router_norm": (True, {}),
    "tuner.router_scope": ("row", {}),
    "tuner.train_router": (False, {}),
    "tuner.top_k": (1, {}),
    "tuner.balance_weight": (5, {}),
    "tuner.gate_information": (5, {}),
    "tuner.cores": (True, {}),
    "tuner.head_init": ("centred", {"tuner.router_init": "random"}),
    "tuner.head_dropout": (0.5, {}),
    "tuner.target_modules": (["q_proj"], {}),
    "tuner.exclude_modules": (["up_proj"], {}),
    "tuner.layers_to_transform": ([1], {}),
    "tuner.modules_to_save": (["lm_head"], {}),
    "tuner.virtual_tokens": (3, {"method": "prompt-tuning"}),
    "training.max_steps": (2, {}),
    "training.epochs": (0.5, DROP),
    "training.batch_size": (3, {}),
    "training.gradient_accumulation": (2, {}),
    "training.learning_rate": (1e-4, {}),
    "training.warmup_ratio": (0.6, {}),
    "training.max_length": (40, {}),
    "training.too_long": ("cut", {"training.max_length": 40}),
    "training.eval_every": (1, {}),
    "training.sample_prompts": (1, {}),
    "training.save_every": (1, {}),
    "training.keep_checkpoints": (3, {"training.save_every": 1}),
    "training.snapshots": (2, {}),
    "training.log_every": (1, {}),
    "training.gradient_checkpointing": (True, {}),
    "training.measure_forgetting": (True, {}),
    "training.benchmarks": (["written"], {"training.benchmark_rows": 2}),
    "training.benchmark_rows": (3, {"training.benchmarks": ["written"]}),
    "training.report_to": (["nobody"], {}),
    "training.seed": (3, {}),
    "training.threads": (2, {}),
    "launch.processes": (2, {}),
    "launch.executor": ("slurm", {}),
    "launch.nodes": (2, {"launch.executor": "slurm"}),
    "launch.slurm": ({"timeout_min": 7}, {"launch.executor": "slurm"}),
    "launch.fsdp": ("full_shard", {}),
    "launch.fsdp_config": ({"min_num_params": 10}, {"launch.fsdp": "full_shard"}),
    "launch.deepspeed": ("nowhere.json", {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two base models, and the files that recipes name."""
    folder = tmp_path_factory.mktemp("settings")
    write_tiny_model(folder / "base", sharpness=5)
    write_tiny_model(folder / "other", sharpness=5, seed=1)
    rows = [
        {
            "question": f"{WORDS[i % 6]} and {WORDS[i // 6]}",
            "answer": WORDS[(i * 5) % 6],
            "task": "ab"[i % 2],
            "kind": "x",
        }
        for i in range(36)
    ]
    rows[7]["question"] = "say <|im_end|>"
    rows[8]["question"] = "long " * 8
    for name, part in (
        ("rows", rows),
        ("fewer", rows[:20]),
        ("heldout", [row | {"question": "?"} for row in rows[:6]]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    (folder / "mapping.yaml").write_text("question: answer\nanswer: question\n", encoding="utf-8")
    return folder


def recipe_of(folder: Path, changes: dict[str, Any]) -> Recipe:
    values: dict[str, Any] = {
        "model": "base",
        "data.train": "rows.jsonl",
        "components.k": 3,
        "tuner.r": 4,
        "training.max_steps": 3,
        "training.batch_size": 4,
        "training.threads": 1,
        "training.log_every": 2,
    } | changes
    nested: dict[str, Any] = {}
    for key, value in values.items():
        if value and key in ("model", "data.train", "data.eval", "data.mapping"):
            value = str(folder / value)
        if value is not None:  # None: the default
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
    return parse_recipe(nested)


def attempt(what: Any) -> object:
    """What it returns, or the error's sentence."""
    try:
        return what()
    except (HydraError, ValueError, ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def observe(recipe: Recipe, folder: Path, parameters: list[dict[str, Any]]) -> dict[str, object]:
    """A run and its launch, in all that can be seen of them."""
    run = Run(folder / "run")
    folders = OutputFolders(folder / "adapter", folder / "checkpoints", folder / "snapshots")
    events: list[Event] = []
    measured = {"seconds", "peak_memory_bytes", "tokens_per_second"}
    results = attempt(lambda: train(recipe, folders, Monitor(events.append)).model_dump(exclude=measured))
    parameters.clear()
    return {
        "results": results,
        "events": [(type(event).__name__, event.step, comparable(event)) for event in events],
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
        "settings": read(folder / "adapter" / "adapter_config.json"),
        "threads": torch.get_num_threads(),
        "arguments": attempt(
            lambda: training_arguments(recipe.training, Path("out"), "cpu", recipe.launch, 5).to_sanitized_dict()
        ),
        "command": job_command(run, recipe)[1:-1],
        "job": recipe.launch.executor == "slurm" and (attempt(lambda: submit([(run, recipe)])), *parameters),
    }


def comparable(event: Event) -> object:
    if isinstance(event, TrainEvent):
        return event.loss, event.learning_rate, event.balance_loss
    return event.model_dump(exclude={"time"}) if not isinstance(event, NoteEvent) else event.message


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a cluster is asked for; there is none here."""
    submitit = pytest.importorskip("submitit")
    asked: list[dict[str, Any]] = []

    class Executor:
        def __init__(self, **options: Any) -> None: ...

        def update_parameters(self, **options: Any) -> None:
            asked.append({name: value for name, value in options.items() if name != "name"})
            raise ValueError("no cluster")

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    return asked


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks that can be had without a network."""
    manager = pytest.importorskip("lm_eval.tasks").TaskManager
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    definitions = write_tasks(tmp_path / "tasks")
    monkeypatch.setattr(benchmarks, "_manager", lambda _: manager(include_path=str(definitions)))


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_every_setting_is_here(folder: Path) -> None:
    recipe = recipe_of(folder, {})
    assert set(CHANGES) == set(recipe.settings())


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_changes_the_run(
    name: str, folder: Path, tmp_path: Path, parameters: list[dict[str, Any]]
) -> None:
    value, others = CHANGES[name]
    before, after = recipe_of(folder, others), recipe_of(folder, others | {name: value})
    assert before.settings()[name] != after.settings()[name]
    seen = [observe(recipe, tmp_path / str(i), parameters) for i, recipe in enumerate((before, after))]
    assert differences(*seen), f"nothing reads {name}"


def test_the_same_settings_give_the_same_run(folder: Path, tmp_path: Path, parameters: list[dict[str, Any]]) -> None:
    seen = [observe(recipe_of(folder, {}), tmp_path / str(i), parameters) for i in range(2)]
    assert differences(*seen) == []


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return [part for part in one if one[part] != other[part]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({}, []),
        ({"method": "lora", "tuner.top_k": 1, "tuner.num_heads": 2}, ["tuner.num_heads", "tuner.top_k"]),
        ({"method": "uniform", "tuner.router_entropy": 0.9}, ["tuner.router_entropy"]),
        ({"method": "oracle", "tuner.top_k": 1, "tuner.router": "cosine"}, ["tuner.router", "tuner.top_k"]),
        ({"tuner.router_init": "random", "components.labels": "shuffled"}, ["components.labels"]),
        ({"tuner.router_init": "random", "tuner.router_entropy": 0.9}, ["tuner.router_entropy"]),
        ({"tuner.virtual_tokens": 3}, ["tuner.virtual_tokens"]),
        ({"method": "full", "tuner.r": 5, "training.snapshots": 2}, ["tuner.r", "training.snapshots"]),
        (P_TUNING, ["tuner.lora_dropout", "tuner.target_modules"]),
        (IA3, ["tuner.lora_alpha", "tuner.layers_to_transform"]),
        ({"method": "adalora", "tuner.use_rslora": True}, ["tuner.use_rslora"]),
        ({"data.eval": "heldout.jsonl", "data.stratify": "task"}, ["data.stratify"]),
        ({"components.sentence_model": "other"}, ["components.sentence_model"]),
        ({"components.method": "dbscan"}, ["components.k"]),
        ({"launch.slurm": {"timeout_min": 7}}, ["launch.slurm"]),
    ],
)
def test_a_setting_that_another_one_excludes_is_named(
    changes: dict[str, Any], idle: list[str], folder: Path, tmp_path: Path, parameters: list[dict[str, Any]]
) -> None:
    recipe = recipe_of(folder, changes)
    assert [name for name, _ in without_effect(recipe)] == idle
    for name in idle:  # and it has none
        default = recipe_of(folder, {key: value for key, value in changes.items() if key != name} | {name: None})
        seen = [observe(each, tmp_path / f"{name} {i}", parameters) for i, each in enumerate((recipe, default))]
        assert differences(*seen) == [], name
