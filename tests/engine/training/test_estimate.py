"""How long a run takes, before it starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from hydralora import DatasetError
from hydralora.data.progress import describe_duration
from hydralora.models.catalogue import find_model
from hydralora.models.loading import weight_parameters
from hydralora.recipe.settings import Recipe
from hydralora.training.estimate import LOADING, run_seconds

Make = Callable[..., Recipe]


def test_more_work_takes_longer(make_recipe: Make) -> None:
    def seconds(**training: int) -> float:
        told = run_seconds(make_recipe(eval_every=0, **training))
        assert told is not None
        return told - LOADING

    one = seconds(max_steps=1000)
    assert one > 0
    assert seconds(max_steps=10_000) > 5 * one
    assert seconds(max_steps=1000, gradient_accumulation=10) == pytest.approx(seconds(max_steps=10_000))


def test_a_model_that_isnt_here_yet_has_no_estimate(make_recipe: Make) -> None:
    recipe = make_recipe()
    recipe.model = "nobody/nothing"
    assert run_seconds(recipe) is None


def test_data_that_cant_be_used_is_an_error(make_recipe: Make) -> None:
    recipe = make_recipe()
    recipe.data.train = "missing.jsonl"
    with pytest.raises(DatasetError):
        run_seconds(recipe)


def test_embeddings_are_not_multiplied_with(model_folder: Path) -> None:
    with safe_open(model_folder / "model.safetensors", "pt") as weights:
        shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    wanted = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for key, shape in shapes.items() if "embed" not in key)
    assert weight_parameters(find_model(str(model_folder))) == wanted


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (40.4, "40 s"), (89, "89 s"), (120, "2 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_a_duration_is_said_as_a_person_would(seconds: float, words: str) -> None:
    assert describe_duration(seconds) == words
