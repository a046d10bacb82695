"""Held-out prompts that a run answers, what it takes of its machine, and the energy that it spends."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydralora.data.encoding import encode_all
from hydralora.data.examples import Example
from hydralora.inference.generation import answer_batch
from hydralora.inference.sample_answers import LONGEST, answer_samples, choose_samples
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import EvalEvent, Event, TrainEvent
from hydralora.training.energy import PARTS, EnergyMeter
from hydralora.training.monitor import Monitor
from hydralora.training.preparation import prepare
from hydralora.training.resources import UsageMeter
from hydralora.training.run import train
from tests.known import known
from tests.waiting import wait_until

Make = Callable[..., Recipe]


def example(i: int) -> Example:
    return Example(i, ({"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": "plum"}), None)


def test_samples_are_of_as_many_components_as_there_are(tokenizer: Any) -> None:
    rows = encode_all(tokenizer, [example(i) for i in range(30)], 64, "drop").rows
    components = [i // 10 for i in range(30)]
    for seed in range(5):
        chosen = choose_samples(rows, components, 4, seed)
        found = sorted(components[rows.index(row)] for row in chosen)
        assert [found.count(i) for i in range(3)] == [2, 1, 1]
        assert chosen == choose_samples(rows, components, 4, seed)
    assert choose_samples(rows, components, 0, 0) == []
    assert len({row.example.prompt[-1]["content"] for row in choose_samples(rows, components, 99, 0)}) == 30


def test_a_run_answers_the_same_prompts_before_meanwhile_and_after(make_recipe: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    recipe = make_recipe(max_steps=30, eval_every=10, learning_rate=3e-2, sample_prompts=2)
    train(recipe, tmp_path / "adapter", Monitor(events.append))
    told = [(event.split, event.answers) for event in events if isinstance(event, EvalEvent)]
    assert [split for split, _ in told] == ["before", "live", "live", "after"]
    assert len({tuple(one.prompt for one in answers) for _, answers in told}) == 1
    assert {one.expected for one in told[0][1]} == {"plum", "saw"}  # one of each component
    assert told[0][1] != told[-1][1]
    prepared = prepare(recipe, lambda stage: None)
    chosen = choose_samples(prepared.heldout, prepared.heldout_labels, 2, recipe.training.seed)
    with prepared.model.disable_adapter():
        assert answer_samples(prepared.model, prepared.tokenizer, chosen) == told[0][1]
        prompts = [row.input_ids[: -sum(label >= 0 for label in row.labels)] for row in chosen]
        alone = [answer_batch(prepared.model, prepared.tokenizer, [ids], LONGEST)[0] for ids in prompts]
    assert alone == [one.answer for one in told[0][1]]


def test_no_prompts_are_answered_where_none_are_wanted(make_recipe: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    train(make_recipe(max_steps=4, eval_every=2, sample_prompts=0), tmp_path / "adapter", Monitor(events.append))
    assert [event.answers for event in events if isinstance(event, EvalEvent)] == [[], [], []]


def test_a_run_tells_what_it_takes(make_recipe: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    train(make_recipe(max_steps=6, log_every=2), tmp_path / "adapter", Monitor(events.append))
    told = [known(event.usage) for event in events if isinstance(event, TrainEvent)]
    assert all(usage.memory_bytes > 50e6 for usage in told)
    assert all(usage.disk_free_bytes > 0 and usage.memory_free_bytes > 0 for usage in told)
    assert any(usage.cpu_percent > 0 for usage in told)


def test_usage_is_that_since_the_last_look(tmp_path: Path) -> None:
    usage = UsageMeter("cpu", tmp_path)
    until = time.process_time() + 1
    while time.process_time() < until:
        pass
    busy = usage.look().cpu_percent
    wait_until(lambda: usage.look().cpu_percent < busy / 10, seconds=5)  # since the start, it would take 9 s


@pytest.mark.slow
def test_energy_is_the_sum_of_its_parts(capfd: pytest.CaptureFixture[str]) -> None:
    meter = EnergyMeter()
    until = time.monotonic() + 2
    while time.monotonic() < until:
        pass
    found = meter.stop()
    assert found is not None
    assert set(found) == set(PARTS)
    assert found["cpu"] > 0
    assert found["total"] == pytest.approx(found["cpu"] + found["gpu"] + found["ram"])
    assert found["total"] < 1e-3  # 2 s at less than 1.8 kW
    assert capfd.readouterr() == ("", "")
