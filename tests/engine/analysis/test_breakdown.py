"""A LoRA for each component: the right rows, the right settings, trained once; and what is measured of them."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from hydralora import ConfigError, RunStore
from hydralora.analysis import LayerWeights, Separation, read_weights
from hydralora.analysis.breakdown import (
    Breakdown,
    Part,
    _change,
    break_down,
    breakdown_recipes,
    breakdown_runs,
    breakdown_steps,
    component_names,
    heads_apart,
    heads_reading,
    start_breakdown,
)
from hydralora.cli.options import app
from hydralora.components.rows import read_rows, read_used
from hydralora.recipe.settings import Recipe
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.snapshots import save_snapshot
from tests.conftest import FinishedRun
from tests.known import known
from tests.tiny_model import MLP, tiny_llama

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
    assert told["difference"]["modules"] == 6
    assert told["difference"]["interval"][0] <= told["difference"]["mean"] <= told["difference"]["interval"][1]
    return [jobs.store.get(run_id) for run_id in told["runs"].values()]


@pytest.mark.slow
def test_each_lora_learns_one_component_alone(broken_down: list[Run], finished: FinishedRun) -> None:
    sizes = known(finished.run.state().results).sizes
    assert len(broken_down) == len(sizes) == 3
    used_rows = 0
    for i, run in enumerate(broken_down):
        recipe, rows = run.recipe(), known(known(run.state().results).rows)
        assert (recipe.method, recipe.components.only, recipe.tuner.r) == ("lora", i + 1, finished.run.recipe().tuner.r)
        assert rows.train < len(read_rows(recipe).examples) / 2
        used = read_used(recipe)
        assert (len(used.train), len(used.heldout)) == (rows.train, rows.heldout)
        assert list(run.label().tags) == ["breakdown"]
        used_rows += rows.train + rows.heldout
    assert used_rows == sum(sizes)  # components are found in all rows, before some are held out


@pytest.mark.slow
def test_what_is_trained_is_not_trained_again(broken_down: list[Run], jobs: JobManager, finished: FinishedRun) -> None:
    assert breakdown_runs(jobs.store, finished.run, STEPS) == broken_down
    assert start_breakdown(jobs, finished.run, STEPS) == broken_down
    assert breakdown_runs(jobs.store, finished.run, STEPS + 1) == [None] * 3
    assert breakdown_steps(jobs.store, finished.run) == STEPS


@pytest.mark.slow
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
    change = cosine(lambda i, module: ends[i][module].a.half().float() - firsts[i][module].a)
    assert found.cosine("change of A") == pytest.approx(change, abs=1e-4)
    assert (found.cosine("A") or 0) > 0.9


def part(what: str, cosines: Sequence[float], silhouette: float = 0.1) -> Part:
    """Of a module for each cosine, with labels that lie apart by chance between -.1 and .05."""
    dealt = tuple(float(value) for value in np.linspace(-0.1, 0.05, 200))
    named = {f"layers.{i}": cosine for i, cosine in enumerate(cosines)}
    return Part(what, Separation((2, 2), 3, max(2, len(cosines)), silhouette, dealt, named))


def compared(change: Sequence[float], heads: Sequence[float], *silhouettes: float) -> Breakdown:
    """What was measured of A, its change, and B."""
    changed, own = silhouettes or (0.1, 0.1)
    parts = [part("A", [0.99] * len(change)), part("change of A", change, changed), part("B", heads, own)]
    return Breakdown(parts, [])


@pytest.mark.parametrize(
    ("change", "heads", "told"),
    [
        ([0.8, 0.7, 0.8, 0.9, 0.8, 0.7], [0.1] * 6, "The claim holds here"),
        ([0.3, 0.2, 0.3, 0.2, 0.3, 0.2], [0.28, 0.21] * 3, "does not hold here: the changes of A are no more alike"),
        ([0.1, 0.2, 0.1, 0.1, 0.2, 0.1], [0.5] * 6, "does not hold here: the changes of A are less alike"),
        ([0.9, -0.5, 0.8, -0.4, 0.9, -0.2], [0.1] * 6, "differ too much from each other"),
        ([0.8, 0.7, 0.8, 0.9], [0.1] * 4, "they have 4 modules in common"),
        ([], [0.5] * 6, "can't be compared"),
    ],
    ids=["holds", "no more", "less", "unlike modules", "few modules", "nothing learnt"],
)
def test_the_verdict_follows_what_was_learnt(change: list[float], heads: list[float], told: str) -> None:
    assert told in compared(change, heads).reading()


def test_the_verdicts_interval_is_that_of_a_mean_of_modules() -> None:
    rng = np.random.default_rng(0)
    heads, more = rng.normal(0.2, 0.1, 400), rng.normal(0.3, 0.2, 400)
    found = compared((heads + more).tolist(), heads.tolist()).difference()
    assert found
    error = more.std(ddof=1) / 20  # of the mean of 400
    assert found.mean == pytest.approx(more.mean())
    assert found.interval == pytest.approx((more.mean() - 1.96 * error, more.mean() + 1.96 * error), abs=0.2 * error)
    assert found == compared((heads + more).tolist(), heads.tolist()).difference()


def test_the_reading_tells_what_lies_apart_by_component() -> None:
    told = compared([0.8] * 6, [0.1] * 6, 0.0, 0.4).reading()
    assert "what training added to A lies no further apart than by chance, B further apart than by chance" in told
    few = compared([0.8] * 2, [0.1] * 2, 0.4, 0.4).reading()
    assert "what training added to A lies in too few modules to tell, B in too few modules to tell" in few


def test_an_a_that_has_not_moved_is_nothing_learnt(tmp_path: Path) -> None:
    """Rounded to half precision it differs from itself, by the same numbers in every run."""
    runs = {}
    for name in ("one", "other"):
        torch.manual_seed(0)  # of A, as all LoRAs of a breakdown
        model: Any = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=MLP))
        run = runs[name] = Run(tmp_path / name)
        save_snapshot(model, run.snapshots, 0)
        torch.manual_seed(len(runs))
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.normal_()
        model.save_pretrained(str(run.adapter))
    assert "can't be compared" in break_down(runs).reading()


def test_what_half_precision_cant_show_has_not_moved() -> None:
    torch.manual_seed(0)
    start = {"up": LayerWeights(torch.randn(1, 4, 500).half().float(), torch.zeros(1, 9, 4), 1.0)}

    def moved(by: float) -> torch.Tensor:
        return _change({"up": replace(start["up"], a=start["up"].a + by * torch.randn(1, 4, 500))}, start)["up"].a

    assert not moved(3e-4).any()
    seen = moved(1e-2)
    torch.testing.assert_close(seen.norm(), torch.tensor(1e-2 * 2000**0.5), rtol=0.1, atol=0)


def test_heads_that_part_by_number_are_told_from_those_that_dont(finished: FinishedRun) -> None:
    recipe = finished.run.recipe()
    weights = read_weights(finished.run.adapter)
    for layer in weights.values():
        torch.manual_seed(0)
        for i in range(len(layer.heads)):
            layer.heads[i] = 10 * i + torch.randn_like(layer.heads[i])
    parts = heads_apart(weights)
    told = {part.separation.modules: part.separation.apart for part in parts}
    assert told == {4: True, 2: None}  # of two modules' heads a sixth of all ways to deal them out is the same way
    assert "heads lie further apart than by chance" in heads_reading(parts, recipe)
    assert "started from the components, as here" in heads_reading(parts, recipe)
    recipe.tuner.router_init = "random"
    assert "started from the components, which was not done here" in heads_reading(parts, recipe)
    assert "in too few modules to tell" in heads_reading([one for one in parts if one.separation.modules == 2], recipe)
    torch.manual_seed(1)
    for layer in weights.values():
        layer.heads.normal_()
    assert "lie no further apart than by chance" in heads_reading(heads_apart(weights), recipe)
    assert heads_reading([], recipe) == ""


def test_one_shape_of_many_that_lies_apart_by_chance_is_no_find(make_recipe: Callable[..., Recipe]) -> None:
    """Of twenty shapes one in forty passes a test of its own."""
    parts = [part("head", [0.0] * 6, silhouette) for silhouette in [0.06, *np.linspace(-0.1, 0.04, 19)]]
    assert [one.separation.apart for one in parts].count(True) == 1
    assert "lie no further apart than by chance" in heads_reading(parts, make_recipe())


def test_one_component_has_no_breakdown(
    finished: FinishedRun, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    run = RunStore(tmp_path).create(make_recipe("lora"))
    for k, told in ((None, "no components yet"), (1, "only one component")):
        run.update(k=k)
        with pytest.raises(ConfigError, match=told):
            breakdown_recipes(run)
