"""A LoRA for each component: the right rows, the right settings, trained once; and what is measured of them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hydralora import ConfigError, RunStore
from hydralora.analysis import Separation, read_weights
from hydralora.breakdown import (
    Breakdown,
    Part,
    break_down,
    breakdown_recipes,
    breakdown_runs,
    breakdown_steps,
    component_names,
    heads_apart,
    start_breakdown,
)
from hydralora.cli import app
from hydralora.jobs import JobManager
from hydralora.preparation import read_rows, read_used
from hydralora.recipe import Recipe
from hydralora.runs import Run
from tests.conftest import FinishedRun

STEPS = 3


@pytest.fixture(scope="module")
def jobs(finished: FinishedRun) -> Iterator[JobManager]:
    """Leaves nothing but the finished run, which other tests share."""
    yield JobManager(finished.store)
    for run in finished.store.all():
        if run.id != finished.run.id:
            shutil.rmtree(run.folder)


@pytest.fixture(scope="module")
def broken_down(jobs: JobManager, finished: FinishedRun) -> list[Run]:
    words = ["breakdown", finished.run.id, "--steps", str(STEPS), "--json", "--workspace", str(jobs.store.workspace)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert {part["what"] for part in told["parts"]} == {"A", "change of A", "B"}
    assert told["reading"].startswith("The claim")
    return [jobs.store.get(run_id) for run_id in told["runs"].values()]


def test_each_lora_learns_one_component_alone(broken_down: list[Run], finished: FinishedRun) -> None:
    sizes = finished.run.state()["results"]["sizes"]
    assert len(broken_down) == len(sizes) == 3
    for i, run in enumerate(broken_down):
        recipe, results = run.recipe(), run.state()["results"]
        assert (recipe.method, recipe.components.only, recipe.tuner.r) == ("lora", i + 1, finished.run.recipe().tuner.r)
        assert results["rows"]["train"] < len(read_rows(recipe).examples) / 2
        used = read_used(recipe)
        assert (len(used.train), len(used.heldout)) == (results["rows"]["train"], results["rows"]["heldout"])
        assert list(run.label().tags) == ["breakdown"]
    learnt = sum(run.state()["results"]["rows"]["train"] for run in broken_down)
    held = sum(run.state()["results"]["rows"]["heldout"] for run in broken_down)
    assert learnt + held == sum(sizes)  # components are found in all rows, before some are held out


def test_what_is_trained_is_not_trained_again(broken_down: list[Run], jobs: JobManager, finished: FinishedRun) -> None:
    assert breakdown_runs(jobs.store, finished.run, STEPS) == broken_down
    assert start_breakdown(jobs, finished.run, STEPS) == broken_down
    assert breakdown_runs(jobs.store, finished.run, STEPS + 1) == [None] * 3
    assert breakdown_steps(jobs.store, finished.run) == STEPS


def test_all_start_from_the_same_a_and_their_change_is_compared(broken_down: list[Run], finished: FinishedRun) -> None:
    named = dict(zip(component_names(finished.run), broken_down, strict=True))
    found = break_down(named)
    assert len(found.members) == 3 * 6 * 2
    firsts = [read_weights(run.snapshots, "step-0.safetensors") for run in broken_down]
    ends = [read_weights(run.adapter) for run in broken_down]
    assert all(torch.equal(firsts[0][module].a, other[module].a) for other in firsts for module in firsts[0])

    def cosine(kind: Callable[[int, str], torch.Tensor]) -> float:
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
        flat = [{module: kind(i, module).flatten() for module in ends[0]} for i in range(3)]
        values = [
            torch.cosine_similarity(flat[i][module], flat[j][module], dim=0) for i, j in pairs for module in ends[0]
        ]
        return float(torch.stack(values).mean())

    assert found.cosine("A") == pytest.approx(cosine(lambda i, module: ends[i][module].a), abs=1e-5)
    assert found.cosine("B") == pytest.approx(cosine(lambda i, module: ends[i][module].heads), abs=1e-5)
    change = cosine(lambda i, module: ends[i][module].a - firsts[i][module].a)
    assert found.cosine("change of A") == pytest.approx(change, abs=1e-4)
    assert (found.cosine("A") or 0) > 0.9


def part(what: str, cosine: float | None) -> Part:
    return Part(what, Separation((2, 2), 1, 0.1, (-0.1, 0.05), cosine))


@pytest.mark.parametrize(
    ("change", "heads", "told"),
    [
        (0.8, 0.1, "The claim holds here"),
        (0.3, 0.28, "no more alike"),
        (0.1, 0.5, "does not hold here: what A's learn is less alike"),
        (None, 0.5, "nothing that could be compared"),
    ],
)
def test_the_verdict_follows_what_was_learnt(change: float | None, heads: float, told: str) -> None:
    found = Breakdown([part("A", 0.99), part("change of A", change), part("B", heads)], [])
    assert told in found.reading()


def test_heads_that_part_by_number_are_told_from_those_that_dont(finished: FinishedRun) -> None:
    weights = read_weights(finished.run.adapter)
    for layer in weights.values():
        torch.manual_seed(0)
        for i in range(len(layer.heads)):
            layer.heads[i] = 10 * i + torch.randn_like(layer.heads[i])
    told = {part.separation.modules: part.separation.apart for part in heads_apart(weights)}
    assert told == {4: True, 2: False}  # of two modules' heads a sixth of all ways to deal them out is the same way
    torch.manual_seed(1)
    for layer in weights.values():
        layer.heads.normal_()
    assert sum(part.separation.apart for part in heads_apart(weights)) <= 1


def test_one_component_has_no_breakdown(
    finished: FinishedRun, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    run = RunStore(tmp_path).create(make_recipe("lora"))
    for k, told in ((None, "no components yet"), (1, "one component alone")):
        run.update(k=k)
        with pytest.raises(ConfigError, match=told):
            breakdown_recipes(run)
