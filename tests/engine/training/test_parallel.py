"""Several processes that train one adapter: they learn what one would, tell it once, and end together."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from pydantic import JsonValue
from safetensors.torch import load_file

import hydralora.training.trainer
from hydralora import ConfigError, DatasetError, RunStore, train
from hydralora.data.batches import collate
from hydralora.inference.loss import answer_logits, answer_loss
from hydralora.models.adapters import load_adapted
from hydralora.models.catalogue import find_model
from hydralora.recipe.launch_settings import LaunchSettings
from hydralora.recipe.reading import load_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs import commands, processes
from hydralora.runs.events import Event
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.training import worker
from hydralora.training.monitor import Monitor
from hydralora.training.parallel import Processes, this_process
from hydralora.training.preparation import _set_threads
from hydralora.training.trainer import training_arguments
from hydralora.tuner.gates import load_balance
from tests.known import known, loss_of
from tests.tiny_model import adapt, tiny_llama
from tests.waiting import wait_until

Make = Callable[..., Recipe]
TORCHRUN = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    """Ends what a test leaves running."""
    manager = JobManager(RunStore(tmp_path / "workspace"))
    yield manager
    for run in manager.store.all():
        for process in processes_of(run):
            process.kill()
    for child in processes.children:
        child.wait(30)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """41 rows of unlike lengths; 33 of them are trained on, so batches of 8 leave one row over in every epoch."""
    rows = []
    for i in range(41):
        letter = chr(ord("a") + i % 26)
        fruit = {"instruction": f"name fruit number {letter * (1 + i % 7)}", "output": "plum" * (1 + i % 3)}
        tool = {"instruction": f"which tool fixes {letter * 3} engine {i}", "output": "saw"}
        rows.append(tool if i % 2 else fruit)
    path = tmp_path_factory.mktemp("ragged") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def processes_of(run: Run, rank: str | None = None) -> list[psutil.Process]:
    """The run's processes that live: all, or the one of this rank."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(run.folder) not in process.cmdline() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if rank is None or process.environ().get("RANK") == rank:
                found.append(process)
        except psutil.Error:
            continue
    return found


def at_work(jobs: JobManager, recipe: Recipe) -> Run:
    """A run of two processes that has taken some steps and would go on for ever."""
    recipe.launch.processes = 2
    recipe.training.max_steps = 1_000_000
    run = jobs.start(recipe)
    wait_until(lambda: run.state().step > 2)
    assert len(processes_of(run)) == 3  # the launcher too
    return run


def numbers(events: list[Event], name: str) -> list[JsonValue]:
    """One number of all events that have it."""
    return [event.values()[name] for event in events if name in event.values()]


@pytest.mark.slow
@pytest.mark.parametrize("balance_weight", [0.0, 0.1])
def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(
    balance_weight: float, jobs: JobManager, make_recipe: Make, ragged: Path, model_folder: Path, tmp_path: Path
) -> None:
    steps = {
        "max_steps": 8,
        "gradient_accumulation": 2,
        "eval_every": 3,
    }  # an epoch has 3 steps, the last one of a single row
    alone = make_recipe(tuner={"balance_weight": balance_weight}, batch_size=8, **steps)
    shared = make_recipe(tuner={"balance_weight": balance_weight}, batch_size=4, **steps)
    alone.data.train = shared.data.train = str(ragged)
    shared.launch.processes = 2
    events: list[Event] = []
    results = train(alone, tmp_path / "alone", Monitor(events.append))
    assert known(results.rows).values() == {"train": 33, "heldout": 8, "problems": {}}

    run = jobs.start(shared)
    state = jobs.follow(run)
    assert state.state == "finished", run.log.read_text(encoding="utf-8")
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "alone", run.adapter))
    assert set(one) == set(two)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4
    assert any(bool(value.any()) for name, value in two.items() if "hydra_B" in name)

    told = run.events()
    assert [(event.kind, event.step) for event in told] == [
        (event.kind, event.step) for event in events if event.kind not in ("progress", "step")
    ]  # each once
    for name in ("loss", "balance_loss", "learning_rate", "exact_match"):
        assert numbers(told, name) == pytest.approx(numbers(events, name), abs=1e-4)
    assert loss_of(known(state.results).tuned) == pytest.approx(loss_of(results.tuned), abs=1e-4)
    load_adapted(find_model(str(model_folder)), run.adapter)
    wait_until(lambda: not processes_of(run), 30)


@pytest.mark.slow
def test_both_stop_at_the_same_step(jobs: JobManager, make_recipe: Make, model_folder: Path) -> None:
    run = at_work(jobs, make_recipe())
    jobs.stop(run)
    state = jobs.follow(run, poll=0.05)
    assert (state.state, known(state.results).tuned) == ("stopped", None), run.log.read_text(encoding="utf-8")
    assert 2 < state.step < 1_000_000
    load_adapted(find_model(str(model_folder)), run.adapter)
    wait_until(lambda: not processes_of(run), 30)
    assert jobs.refresh(run).state == "stopped"


@pytest.mark.slow
def test_a_stop_before_the_first_step_ends_both(jobs: JobManager, make_recipe: Make) -> None:
    recipe = make_recipe()
    recipe.launch.processes = 2
    run = jobs.start(recipe)
    jobs.stop(run)
    state = jobs.follow(run, poll=0.05)
    assert (state.state, state.step) == ("stopped", 0), run.log.read_text(encoding="utf-8")
    wait_until(lambda: not processes_of(run), 30)
    assert jobs.refresh(run).state == "stopped"


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["0", "1", "launcher"])
def test_none_outlives_another(killed: str, jobs: JobManager, make_recipe: Make) -> None:
    run = at_work(jobs, make_recipe(eval_every=0))
    pid = known(run.state().pid) if killed == "launcher" else processes_of(run, killed)[0].pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: jobs.refresh(run).state == "interrupted", 20)
    wait_until(lambda: not processes_of(run), 20)
    assert jobs.active() == []
    assert jobs.refresh(run).state == "interrupted"


@pytest.mark.slow
def test_a_failure_is_told_in_its_own_words(jobs: JobManager, make_recipe: Make) -> None:
    recipe = make_recipe()
    recipe.data.train = "/nowhere/rows.jsonl"
    recipe.launch.processes = 2
    run = jobs.start(recipe)
    state = jobs.follow(run, poll=0.05)
    assert state.state == "failed"
    assert "/nowhere/rows.jsonl" in state.message
    wait_until(lambda: not processes_of(run), 30)


def test_the_first_failure_is_the_one_that_is_told(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GRACE", 0.0)
    run = RunStore(tmp_path).create(make_recipe())
    worker._fail(run, DatasetError("row 7 is empty"), Processes(1, 2))
    worker._fail(run, RuntimeError("connection closed by peer"), Processes(0, 2))
    assert (run.state().state, run.state().message) == ("failed", "row 7 is empty")


def test_a_run_that_was_not_launched_so_is_refused(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe()
    recipe.launch.processes = 2
    with pytest.raises(ConfigError, match=r"times launch\.processes is 2, and this run has 1"):
        train(recipe, tmp_path)


@pytest.mark.parametrize(("device", "found"), [("cuda", 1), ("mps", 1)])
def test_each_process_needs_a_gpu(device: str, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    with pytest.raises(ConfigError, match=rf"{found} GPU"):
        Processes(0, 2, 0, 2).connect(2, device)


def test_the_launcher_says_who_is_who(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    assert this_process() == Processes(0, 1)
    for name, value in zip(TORCHRUN, ("a", "5", "8", "1", "4"), strict=True):
        monkeypatch.setenv(name, value)
    assert this_process() == Processes(5, 8, 1, 4)
    assert not this_process().is_first


def test_one_process_needs_no_launcher(make_recipe: Make, tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(make_recipe())
    assert commands.worker_command(run, 1)[1:] == ["-m", "hydralora.training.worker", str(run.folder)]
    several = commands.worker_command(run, 3)
    assert several[1:3] == ["-m", "torch.distributed.run"]
    assert several[several.index("--nproc-per-node") + 1] == "3"
    assert several[-3:] == ["-m", "hydralora.training.worker", str(run.folder)]


@pytest.mark.parametrize(("threads", "processes", "each"), [(0, 1, 8), (0, 2, 4), (0, 16, 1), (3, 2, 3)])
def test_processes_share_the_cores(threads: int, processes: int, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    _set_threads(threads, processes)
    assert used == [each]


def test_a_batch_without_rows_teaches_nothing() -> None:
    model = adapt(tiny_llama(), num_heads=2, head_init="centred").train()
    loss = answer_loss(*answer_logits(model, collate([], pad_token_id=0))).sum()
    assert float(loss.detach()) == 0
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert gradients
    assert all(gradient is not None and not gradient.any() for gradient in gradients)  # each is there for the others


def test_shares_of_a_batch_are_balanced_as_one() -> None:
    generator = torch.Generator().manual_seed(0)
    gates = torch.rand((5, 4, 6, 3), generator=generator).softmax(-1)  # (modules, batch, tokens, N)
    mask = torch.rand((4, 6), generator=generator) < 0.7
    shares = [mask & (torch.arange(4) % 2 == rank)[:, None] for rank in range(2)]
    shares.append(torch.zeros_like(mask))  # a process without rows
    counts: list[list[torch.Tensor]] = [[], [], []]

    def noted(rank: int, values: torch.Tensor) -> torch.Tensor:
        counts[rank].append(values)
        return values

    for rank, share in enumerate(shares):
        load_balance(gates, share, partial(noted, rank))
    totals = [sum(values) for values in zip(*counts, strict=True)]
    parts = [float(load_balance(gates, share, one_by_one(totals))) for share in shares]
    assert sum(parts) == pytest.approx(float(load_balance(gates, mask)), abs=1e-6)
    assert parts[-1] == 0


def one_by_one(totals: list[Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a sum over processes gives, one call after another."""
    left = iter(totals)
    return lambda _: next(left)


def test_settings_of_fsdp_and_deepspeed_are_passed_through(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def arguments(**settings: Any) -> Any:
        given.append(settings)
        return SimpleNamespace(n_gpu=0)

    monkeypatch.setattr(hydralora.training.trainer, "TrainingArguments", arguments)
    sharding = {
        "fsdp": "full_shard auto_wrap",
        "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]},
        "deepspeed": {"zero_optimization": {"stage": 2}, "train_batch_size": "auto"},
    }
    settings = make_recipe().training
    training_arguments(settings, tmp_path, "cpu", LaunchSettings(**sharding))
    training_arguments(settings, tmp_path, "cpu", LaunchSettings())
    assert {name: given[0][name] for name in sharding} == sharding
    assert not set(sharding) & set(given[1])


def test_a_file_of_such_settings_lies_beside_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndata: {train: rows.jsonl}\nlaunch: {processes: 2, deepspeed: zero.json}\n")
    launch = load_recipe(path).launch
    assert launch == LaunchSettings(processes=2, deepspeed=str(tmp_path.resolve() / "zero.json"))


@pytest.mark.slow
def test_accelerate_can_launch_a_run(store: RunStore, make_recipe: Callable[..., Recipe]) -> None:
    run = store.create(make_recipe(max_steps=2))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu"]
    done = subprocess.run(
        [*command, "-m", "hydralora.training.worker", str(run.folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert run.state().state == "finished"
