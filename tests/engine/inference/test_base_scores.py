"""A base model's scores are measured once for all runs on the same rows."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hydralora.inference import evaluation
from hydralora.recipe.settings import Recipe
from hydralora.training import run as training
from hydralora.training.run import OutputFolders, train


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each evaluation; those of the neutral text are not among them."""
    seen: list[int] = []

    def counted(model: object, rows: list[object], *rest: object) -> object:
        seen.append(len(rows))
        return evaluation.evaluate_rows(model, rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "evaluate_rows", counted)
    return seen


def test_they_are_measured_once(tmp_path: Path, make_recipe: Callable[..., Recipe], evaluations: list[int]) -> None:
    shared = tmp_path / "shared"

    def run(name: str, recipe: Recipe) -> float | None:
        folder = tmp_path / name
        base = train(recipe, OutputFolders(folder, row_scores=folder / "rows", base_scores=shared)).base
        return base.loss if base else None

    recipe = make_recipe(max_steps=2, eval_every=0, sample_prompts=0)
    first = run("first", recipe)
    assert len(evaluations) == 2
    lora = recipe.model_copy(update={"method": "lora"})
    assert run("second", lora) == first
    assert len(evaluations) == 3
    assert (tmp_path / "first/rows/before.json").read_bytes() == (tmp_path / "second/rows/before.json").read_bytes()
    for file in shared.rglob("*.json"):
        file.write_text("{")
    assert run("third", lora) == first  # a damaged file is no error
    assert len(evaluations) == 5
    other = recipe.model_copy(deep=True)
    other.training.seed = 1  # holds other rows out
    assert run("fourth", other) != first
    assert len(evaluations) == 7


def test_forgetting_is_measured_on_a_neutral_text(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    steps = {"max_steps": 12, "eval_every": 0, "sample_prompts": 0, "learning_rate": 0.05}
    without = train(make_recipe(**steps), tmp_path / "without")
    assert without.forgetting is None
    results = train(make_recipe(**steps, measure_forgetting=True), tmp_path / "with")
    assert results.adapter_hash == without.adapter_hash  # measuring changes nothing
    forgetting = results.forgetting
    assert forgetting
    assert forgetting.before
    assert forgetting.increase != 0
    assert results.tokens_per_second
    untaught = train(make_recipe(**steps | {"learning_rate": 1e-30}, measure_forgetting=True), tmp_path / "untaught")
    assert untaught.forgetting
    assert untaught.forgetting.before == forgetting.before
    assert untaught.forgetting.increase == pytest.approx(0, abs=1e-4)
