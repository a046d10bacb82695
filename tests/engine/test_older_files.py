"""Files that the program wrote before its records had types: a run, an adapter, a recipe, an exported zip, a trace.

`tests/fixtures/version_1` holds them, of the tiny model; "@FOLDER@" stands for the folder that they were made in.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hydralora import RunStore, generate
from hydralora.inference.generation import Sampling
from hydralora.inference.model_cache import load_run
from hydralora.inference.traces import load_trace
from hydralora.recipe.reading import load_recipe
from hydralora.runs.events import EvalEvent, GatesEvent, NoteEvent, TrainEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.snapshots import saved_snapshots
from hydralora.runs.state import Stage
from hydralora.transfer import import_run
from tests.known import known, loss_of
from tests.tiny_model import write_tiny_model

FILES = Path(__file__).parents[1] / "fixtures" / "version_1"
RUN = "20261127-041857-cce3"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder that the files were made in, as it was."""
    shutil.copytree(FILES, tmp_path / "workspace")
    write_tiny_model(tmp_path / "models" / "tiny")
    for path in (tmp_path / "workspace").rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml"):
            text = path.read_text(encoding="utf-8").replace("@FOLDER@", tmp_path.as_posix())
            path.write_text(text, encoding="utf-8")
    shutil.move(tmp_path / "workspace" / "rows.jsonl", tmp_path)
    return tmp_path / "workspace"


@pytest.fixture
def run(old: Path) -> Run:
    return RunStore(old).get(RUN)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def test_the_state_and_the_results_are_read(run: Run) -> None:
    state = run.state()
    results = known(state.results)
    assert (state.state, state.step, state.max_steps, state.k, state.progress) == ("finished", 8, 8, 2, (10, 10))
    assert [component.name for component in results.components] == ["fruit, name, number", "engine, fixes, tool"]
    assert loss_of(results.tuned) == known(results.tuned).loss == pytest.approx(5.504057)
    assert known(results.tuned).per_task["tool"].rows == 3
    assert known(results.parameters).total == 5452
    assert known(state.spent).seconds["training"] == 0.49


def test_the_events_are_read(run: Run) -> None:
    events = run.events()
    assert len(events) == len((FILES / "runs" / RUN / "events.jsonl").read_text().splitlines())
    assert {type(event) for event in events} == {TrainEvent, EvalEvent, GatesEvent, NoteEvent}
    stages = [event.stage for event in events if isinstance(event, NoteEvent) and event.stage]
    later = (Stage.MIXING, Stage.EVALUATING_BASE_TASKS, Stage.EVALUATING_TUNED_TASKS, Stage.MEASURING_HEADS)
    assert stages == [stage for stage in Stage if stage not in later]
    live = next(event for event in events if isinstance(event, EvalEvent) and event.split == "live")
    assert live.answers[0].expected in ("plum", "saw")


def test_its_settings_are_read_by_their_old_names(old: Path, run: Run) -> None:
    for recipe in (run.recipe(), load_recipe(old / "recipe.yaml")):
        training = recipe.training
        assert (training.gradient_accumulation, training.warmup_ratio) == (2, 0.1)
        assert (training.too_long, training.sample_prompts) == ("cut", 1)
    changed = load_recipe(old / "recipe.yaml", ["training.gradient_accumulation=3", "training.warmup=0.2"])
    assert (changed.training.gradient_accumulation, changed.training.warmup_ratio) == (3, 0.2)


def test_its_adapter_answers_as_its_trace_says(old: Path, run: Run) -> None:
    trace = load_trace(old / "trace.json")
    loaded = load_run(run)
    assert loaded.adapter_hash == trace.adapter_hash
    sampling = Sampling(max_new_tokens=trace.sampling.max_new_tokens)
    messages = [message.model_dump() for message in trace.messages]
    tokens = list(generate(loaded.model, loaded.tokenizer, messages, sampling, steering=trace.source.steering))
    assert [token.id for token in tokens] == [token.id for token in trace.tokens]
    assert all(row == [0, 1] for token in trace.tokens for row in token.gates)  # it was steered to the second head


def test_its_snapshots_are_found(run: Run) -> None:
    assert set(saved_snapshots(run.snapshots)) == {0, 8}


def test_its_export_is_imported(old: Path, run: Run) -> None:
    imported = import_run(RunStore(old), old / "exported.zip", run.recipe().model)
    assert imported.state().state == "finished"
    assert known(imported.state().results).tuned == known(run.state().results).tuned
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(imported).items())


@pytest.mark.slow
def test_it_resumes_from_its_checkpoint_to_the_same_weights(old: Path, run: Run) -> None:
    before = weights(run)
    shutil.rmtree(run.adapter)
    run.update(state="interrupted", step=4)
    jobs = JobManager(RunStore(old))
    assert jobs.resume(run) == 4
    assert jobs.follow(run).state == "finished"
    for name, value in weights(run).items():
        torch.testing.assert_close(value, before[name], rtol=1e-4, atol=1e-6)
