"""Training: what it changes, what it leaves alone, and what it tells."""

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

import hydralora.training.run
import hydralora.training.trainer
from hydralora import ConfigError, ModelError, RunError, train
from hydralora.data.batches import batch_order, collate
from hydralora.models.adapters import hash_adapter, load_adapted
from hydralora.models.catalogue import find_model
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import BaseEvent, EvalEvent, Event, GatesEvent, NoteEvent, ProgressEvent, TrainEvent
from hydralora.runs.results import RunResults
from hydralora.training.monitor import LIVE_ROWS, Monitor
from hydralora.training.preparation import prepare
from hydralora.training.trainer import training_arguments
from hydralora.tuner.model import hydra_layers
from tests.known import known, loss_of
from tests.tiny_model import write_tiny_model

Make = Callable[..., Recipe]
E = TypeVar("E", bound=BaseEvent)


@dataclass
class Trained:
    events: list[Event]
    results: RunResults
    adapter: Path

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


def trained_on(recipe: Recipe, output: Path) -> Trained:
    events: list[Event] = []
    return Trained(events, train(recipe, output, Monitor(events.append)), output)


@pytest.fixture(scope="module")
def trained(make_recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    recipe = make_recipe(max_steps=60, learning_rate=1e-2, eval_every=20)
    return trained_on(recipe, tmp_path_factory.mktemp("trained"))


def test_the_loss_falls(trained: Trained) -> None:
    losses = [known(event.loss) for event in trained.of(TrainEvent)]
    assert losses[-1] < losses[0] * 0.9
    results = trained.results
    assert loss_of(results.tuned) < loss_of(results.base) * 0.9


def test_events_say_what_they_promise(trained: Trained) -> None:
    assert all({"step", "time", "kind"} <= set(event.values()) for event in trained.events)
    steps = [event.step for event in trained.events]
    assert steps == sorted(steps)
    assert [event.step for event in trained.of(TrainEvent)] == [1, *range(2, 61, 2)]
    assert all(known(event.tokens_per_second) > 0 for event in trained.of(TrainEvent))
    assert all(known(event.learning_rate) >= 0 for event in trained.of(TrainEvent))
    for event in trained.of(GatesEvent):
        assert len(event.mean_gate) == 3
        assert sum(event.mean_gate) == pytest.approx(1, abs=1e-5)
        assert 0 < known(event.entropy) <= 1
    assert [(event.split, event.step) for event in trained.of(EvalEvent)] == [
        ("before", 0),
        ("live", 20),
        ("live", 40),
        ("after", 60),
    ]
    assert all(set(event.per_task) <= {"fruit", "tool"} for event in trained.of(EvalEvent))
    json.dumps([event.values() for event in trained.events])


def test_results_are_whole(trained: Trained) -> None:
    results = trained.results
    assert (results.step, results.max_steps, results.stopped) == (60, 60, False)
    assert results.k == 3
    assert sum(results.sizes) == 38 + 10
    assert (known(results.rows).train, known(results.rows).heldout) == (38, 10)
    for gates in known(results.component_by_head):
        assert gates == [] or sum(gates) == pytest.approx(1, abs=1e-5)
    assert results.router_entropy_at_start == pytest.approx(0.6, abs=0.01)
    assert known(results.base_model).source == "folder"
    parameters = known(results.parameters)
    assert parameters.total == parameters.adapter + parameters.router


def test_the_saved_adapter_is_what_was_measured(trained: Trained, model_folder: Path, ids: torch.Tensor) -> None:
    assert {path.name for path in trained.adapter.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    card = (trained.adapter / "README.md").read_text(encoding="utf-8")
    assert "import hydralora" in card
    assert "hydralora with lm_eval --model hf --model_args pretrained=tiny,peft=" in card
    assert known(trained.results.base_model).hash in card
    model = load_adapted(find_model(str(model_folder)), trained.adapter)
    assert all(bool(layer.hydra_B["default"].any()) for layer in hydra_layers(model).values())


def test_the_base_is_frozen(
    make_recipe: Make, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def watched(*args: Any) -> Any:
        seen.append(prepare(*args))
        return seen[0]

    monkeypatch.setattr(hydralora.training.run, "prepare", watched)
    train(make_recipe(max_steps=3), tmp_path)
    before = load_file(model_folder / "model.safetensors")
    names = {"base_model.model." + name: name for name in before}
    after = {name.replace(".base_layer", ""): value for name, value in seen[0].model.named_parameters()}
    assert set(names) <= set(after)
    assert all(torch.equal(after[name], before[names[name]]) for name in names)
    assert all("hydra_" in name for name, value in seen[0].model.named_parameters() if value.requires_grad)


def test_a_recipe_gives_the_same_run_twice(make_recipe: Make, tmp_path: Path) -> None:
    hashes = [train(make_recipe(max_steps=3), tmp_path / name).adapter_hash for name in ("a", "b")]
    assert hashes[0] == hashes[1]
    assert train(make_recipe(max_steps=3, seed=1), tmp_path / "c").adapter_hash != hashes[0]


def test_the_base_is_measured_without_the_adapter(make_recipe: Make, tmp_path: Path) -> None:
    zeros = train(make_recipe(max_steps=1), tmp_path / "a")
    centred = train(make_recipe(max_steps=1, tuner={"head_init": "centred"}), tmp_path / "b")
    assert known(centred.base) == known(zeros.base)


def test_each_epoch_has_an_order_of_its_own(make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[list[int]] = []
    lengths: dict[int, int] = {}

    def watched(items: list[Any], pad_token_id: int) -> dict[str, torch.Tensor]:
        rows.append([item.example.row for item in items])
        lengths.update({item.example.row: len(item.input_ids) for item in items})
        return collate(items, pad_token_id)

    monkeypatch.setattr(hydralora.training.trainer, "collate", watched)
    results = train(make_recipe(max_steps=None, epochs=2, batch_size=8, eval_every=0), tmp_path)
    per_epoch = math.ceil(known(results.rows).train / 8)
    assert results.step == 2 * per_epoch
    order = sorted(lengths)
    for epoch in range(2):
        wanted = batch_order([lengths[row] for row in order], 8, seed=0, epoch=epoch)
        assert rows[epoch * per_epoch : (epoch + 1) * per_epoch] == [[order[i] for i in batch] for batch in wanted]


def test_accumulated_batches_equal_a_big_one(make_recipe: Make, tmp_path: Path) -> None:
    held, few = tmp_path / "held.jsonl", tmp_path / "few.jsonl"
    held.write_text('{"instruction": "other words", "output": "x"}\n', encoding="utf-8")
    rows = [
        f'{{"instruction": "count the {"abcdefgh"[i] * 3} words", "output": "{"a" * (1 + i % 5)}"}}\n' for i in range(8)
    ]
    few.write_text("".join(rows), encoding="utf-8")
    losses = []
    for name, batch_size, accumulation in (("big", 8, 1), ("small", 4, 2)):
        recipe = make_recipe(
            tuner={"num_heads": 2},
            max_steps=4,
            batch_size=batch_size,
            gradient_accumulation=accumulation,
            log_every=1,
            eval_every=0,
        )
        recipe.data.train, recipe.data.eval = str(few), str(held)
        losses.append([known(event.loss) for event in trained_on(recipe, tmp_path / name).of(TrainEvent)])
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_plain_lora_is_trained_in_the_same_way(make_recipe: Make, model_folder: Path, tmp_path: Path) -> None:
    done = trained_on(make_recipe(method="lora", max_steps=40, learning_rate=1e-2), tmp_path)
    assert loss_of(done.results.tuned) < loss_of(done.results.base)
    assert done.results.component_by_head is None
    assert known(done.results.parameters).router == 0
    assert done.of(GatesEvent) == []
    model = load_adapted(find_model(str(model_folder)), tmp_path)
    assert model.peft_config["default"].peft_type == "LORA"


@pytest.mark.parametrize("method", ["lora-split", "uniform"])
def test_the_papers_ablations_are_methods_of_their_own(make_recipe: Make, tmp_path: Path, method: str) -> None:
    done = trained_on(make_recipe(method=method, max_steps=40, learning_rate=1e-2), tmp_path)
    assert loss_of(done.results.tuned) < loss_of(done.results.base)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    wanted = {"lora-split": (False, "softmax"), "uniform": (True, "uniform")}[method]
    assert (config["shared_A"], config["router"]) == wanted
    own = known(done.results.parameters)
    whole = known(trained_on(make_recipe(max_steps=1), tmp_path / "whole").results.parameters)
    assert (own.adapter > whole.adapter) == (method == "lora-split")
    assert (own.router == 0) == (method == "uniform")
    assert method in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_one_component_can_be_trained_alone(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(method="lora", max_steps=2)
    recipe.tuner.num_heads, recipe.components.k, recipe.components.only = None, 2, 2
    recipe.data.stratify = "component"
    results = train(recipe, tmp_path)
    assert len(known(results.tuned).per_task) == 1  # the tasks are the components here
    assert list(known(results.tuned).per_component) == ["1"]
    assert results.ari == 1
    recipe.components.only = 3
    with pytest.raises(ConfigError, match=r"components\.only is 3, but there are 2 components"):
        train(recipe, tmp_path / "wrong")
    recipe.components.k = 60  # a plain LoRA on all rows needs no components, but this one does
    with pytest.raises(ConfigError, match="k is 60"):
        train(recipe, tmp_path / "wrong")


def test_one_component_cannot_start_a_router(make_recipe: Make) -> None:
    values = make_recipe().model_dump() | {"components": {"only": 1}}
    with pytest.raises(ConfigError, match=r"the router can't start from several\. Set method=lora"):
        parse_recipe(values)


def test_it_stops_when_asked_and_keeps_what_it_learnt(make_recipe: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    results = train(make_recipe(max_steps=50), tmp_path, Monitor(events.append, lambda: events[-1].step >= 4))
    assert results.stopped
    assert 4 <= results.step < 8
    assert results.tuned is None
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert any(bool(value.any()) for name, value in weights.items() if "hydra_B" in name)


def test_a_random_start_is_possible(make_recipe: Make, tmp_path: Path) -> None:
    results = train(make_recipe(tuner={"router_init": "random", "router_input": "latent"}, max_steps=2), tmp_path)
    assert results.router_entropy_at_start is None
    assert results.component_by_head is not None


def test_a_loss_that_is_no_number_fails_the_run(make_recipe: Make, tmp_path: Path) -> None:
    broken = write_tiny_model(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    recipe = make_recipe()
    recipe.model = str(broken)
    with pytest.raises(RunError, match="no longer a number"):
        train(recipe, tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_weights_that_are_no_numbers_are_not_saved(
    make_recipe: Make, tmp_path: Path, break_loss: Callable[[int], None]
) -> None:
    break_loss(4)
    with pytest.raises(RunError, match="no longer a number"):  # it happens behind the last step that is logged
        train(make_recipe(max_steps=4, log_every=3, eval_every=0), tmp_path)
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_a_model_that_isnt_there_is_refused(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe()
    recipe.model = "nobody/nothing"
    with pytest.raises(ModelError, match="nobody/nothing"):
        train(recipe, tmp_path)


def stage_of(event: Event) -> str | None:
    """The stage that begins with an event."""
    return event.stage.value if isinstance(event, NoteEvent) and event.stage else None


@pytest.mark.parametrize("stage", ["reading the data", "clustering", "adding the adapter", "evaluating the base model"])
def test_it_stops_before_its_first_step(stage: str, make_recipe: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    results = train(make_recipe(), tmp_path / "adapter", Monitor(events.append, lambda: stage_of(events[-1]) == stage))
    assert stage_of(events[-1]) == stage
    assert (results.stopped, results.step, results.adapter_hash) == (True, 0, None)
    assert results.base is results.tuned is None
    assert not (tmp_path / "adapter").exists()


def progresses(event: Event) -> bool:
    return isinstance(event, ProgressEvent)


def test_it_stops_within_the_first_measurement(make_recipe: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    results = train(make_recipe(), tmp_path / "adapter", Monitor(events.append, lambda: progresses(events[-1])))
    assert (results.stopped, results.step) == (True, 0)
    assert not [event for event in events if event.kind == "eval"]


def test_a_stop_in_the_last_measurement_keeps_the_adapter(make_recipe: Make, tmp_path: Path) -> None:
    events: list[Event] = []

    def should_stop() -> bool:
        return progresses(events[-1]) and events[-1].step > 0

    results = train(make_recipe(max_steps=3), tmp_path, Monitor(events.append, should_stop))
    assert (results.stopped, results.step, results.max_steps) == (True, 3, 3)
    assert results.tuned is results.component_by_head is None
    assert known(results.base).rows > 0
    assert (tmp_path / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(("found", "used"), [(0, 0), (1, 1), (4, 1)])
def test_one_device_is_used(
    found: int, used: int, make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: found))
    arguments = hydralora.training.trainer.training_arguments(make_recipe().training, tmp_path, "cpu")
    assert arguments._n_gpu == used


def test_live_measurements_see_every_part_of_a_sorted_file(make_recipe: Make, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    rows = [{"instruction": f"say {task} {i}", "output": "x", "task": task} for task in "ab" for i in range(40)]
    held.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = make_recipe(max_steps=5, eval_every=2)
    recipe.data.eval = str(held)
    done = trained_on(recipe, tmp_path / "a")
    live = [event.per_task for event in done.of(EvalEvent) if event.split == "live"]
    assert [{task: scores.rows for task, scores in seen.items()} for seen in live] == [
        {task: scores.rows for task, scores in live[0].items()}
    ] * 2
    assert set(live[0]) == {"a", "b"}
    assert sum(scores.rows for scores in live[0].values()) == LIVE_ROWS


def test_half_an_adapter_is_never_seen(make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(self: PeftModel, folder: Path, **options: Any) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "adapter_model.safetensors").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(PeftModel, "save_pretrained", cut_off)
    with pytest.raises(OSError, match="No space"):
        train(make_recipe(max_steps=1), tmp_path / "run" / "adapter")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_second_run_replaces_only_the_adapters_files(make_recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    first = train(make_recipe(max_steps=1), tmp_path).adapter_hash
    second = train(make_recipe(max_steps=2), tmp_path).adapter_hash
    assert first != second == hash_adapter(tmp_path)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("method", ["hydralora", "lora"])
def test_the_recipe_says_which_layers_are_adapted(method: str, make_recipe: Make) -> None:
    tuner = {"exclude_modules": ["up_proj"], "layers_to_transform": [1], "modules_to_save": ["lm_head"]}
    model = prepare(make_recipe(method, tuner), lambda stage: None).model
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    adapted = {name for name in trained if "lm_head" not in name}
    assert adapted < trained
    assert all(".layers.1.mlp." in name for name in adapted)
    assert {part for name in adapted for part in name.split(".") if part.endswith("_proj")} == {
        "gate_proj",
        "down_proj",
    }


@pytest.mark.parametrize("bias", [True, False])
def test_the_recipe_says_whether_routers_have_a_bias(bias: bool, make_recipe: Make) -> None:
    recipe = make_recipe(tuner={"router_bias": bias, "router_init": "random"})
    names = [name for name, _ in prepare(recipe, lambda stage: None).model.named_parameters() if "router" in name]
    assert names
    assert any(name.endswith("bias") for name in names) == bias


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_balance_loss_is_told_apart_from_the_loss(accumulation: int, make_recipe: Make, tmp_path: Path) -> None:
    def events(name: str, **tuner: Any) -> list[TrainEvent]:
        quick = {"max_steps": 5, "log_every": 2, "learning_rate": 1e-9, "eval_every": 0}
        start = {"router_init": "random", "head_init": "centred"}  # gates all alike, whose balance is 1
        recipe = make_recipe(tuner=start | tuner, gradient_accumulation=accumulation, **quick)
        return trained_on(recipe, tmp_path / name).of(TrainEvent)

    without, balanced = events("without"), events("balanced", balance_weight=0.25)
    assert [event.step for event in balanced] == [1, 2, 4]
    assert not any("balance_loss" in event.values() for event in without)
    assert [event.balance_loss for event in balanced] == pytest.approx([0.25] * 3, abs=1e-4)
    assert [event.loss for event in balanced] == pytest.approx([event.loss for event in without], abs=1e-4)


def test_the_balance_loss_evens_the_load_out(make_recipe: Make, tmp_path: Path) -> None:
    tuner = {"router_init": "random", "router_input": "hidden", "balance_weight": 1.0}
    done = trained_on(make_recipe(tuner=tuner, max_steps=12, learning_rate=1e-2, log_every=1, eval_every=0), tmp_path)
    balance = [known(event.balance_loss) for event in done.of(TrainEvent)]
    assert len(balance) == 12
    assert statistics.mean(balance[-4:]) - 1 < 0.7 * (statistics.mean(balance[:2]) - 1)


def test_a_plain_lora_has_no_load_to_balance(make_recipe: Make, tmp_path: Path) -> None:
    done = trained_on(make_recipe("lora", {"balance_weight": 1.0}, max_steps=1), tmp_path)
    assert not any("balance_loss" in event.values() for event in done.of(TrainEvent))


def test_where_a_run_reports_to_goes_to_trainer_and_is_looked_at_first(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(report_to=["tensorboard"])
    assert training_arguments(recipe.training, tmp_path, "cpu").report_to == ["tensorboard"]
    events: list[Event] = []
    with pytest.raises(ConfigError, match="report_to: nowhere is not installed"):
        train(make_recipe(report_to=["nowhere"]), tmp_path / "adapter", Monitor(events.append))
    assert events == []
