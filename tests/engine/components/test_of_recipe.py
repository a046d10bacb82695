"""Components as settings ask for them: by words, by a base model's states, by a sentence model; in runs as anywhere."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hydralora import ConfigError, ModelError
from hydralora.components import overlap
from hydralora.components.of_recipe import find_components, number_trials
from hydralora.data.dataset import read_dataset
from hydralora.recipe.section import choices
from hydralora.recipe.settings import ComponentSettings, Recipe
from hydralora.recipe.tuner_settings import TunerSettings
from hydralora.training.run import train
from tests.tiny_model import tiny_llama

Make = Callable[..., Recipe]


@pytest.fixture(scope="session")
def sentence_model(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A real sentence-transformers model, of a tiny Llama and mean pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(model_folder))
    folder = tmp_path_factory.mktemp("sentences") / "tiny"
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder))
    return folder


@pytest.mark.parametrize("features", ["model", "sentence"])
def test_a_model_tells_rows_apart(features: str, data_file: Path, model_folder: Path, sentence_model: Path) -> None:
    settings = ComponentSettings(features=features, k=2, sentence_model=str(sentence_model))
    data = read_dataset(data_file)
    told: list[tuple[int, int]] = []
    found = find_components(data.examples, settings, str(model_folder), lambda *step: told.append(step))
    assert found.vectors.shape == (48, tiny_llama().config.hidden_size)
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(1)
    assert told == sorted(told)
    assert told[-1] == (1000, 1000)
    assert any(0 < done <= 900 for done, _ in told)
    assert found.assign([example.question for example in data.examples]) == found.labels.tolist()
    assert found.assign(["a text that was not clustered"])[0] in (0, 1)
    again = find_components(data.examples, settings, str(model_folder))
    assert again.labels.tolist() == found.labels.tolist()
    tried = dict(number_trials(data.examples, settings, found, 2))
    assert {len(numbers) for numbers in tried.values()} == {2}


def test_what_is_compared_can_be_chosen(data_file: Path) -> None:
    examples = read_dataset(data_file).examples
    found = {
        text: find_components(examples, ComponentSettings(k=2, text=text), "").vectors
        for text in choices(ComponentSettings, "text")
    }
    assert found["question"].shape != found["everything"].shape or (found["question"] != found["everything"]).any()


def test_without_sentence_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, data_file: Path) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[embeddings\]'"):
        find_components(read_dataset(data_file).examples, ComponentSettings(features="sentence"), "")


def test_a_sentence_model_that_is_none_is_named(data_file: Path, tmp_path: Path) -> None:
    settings = ComponentSettings(features="sentence", sentence_model=str(tmp_path / "absent"))
    with pytest.raises(ModelError, match="absent: it can't be loaded as a sentence-transformers model"):
        find_components(read_dataset(data_file).examples, settings, "")


def test_choices_of_a_setting() -> None:
    assert choices(ComponentSettings, "method") == ("kmeans", "dbscan")
    assert choices(ComponentSettings, "language") == ("en", None)
    assert choices(TunerSettings, "top_k") == choices(ComponentSettings, "names") == ()


def test_a_run_can_start_from_dense_parts_and_leave_noise_alone(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(max_steps=1)
    recipe.tuner.num_heads, recipe.components.method = None, "dbscan"
    kinds = ["name a ripe fruit {}", "which tool repairs engine {}"]
    texts = [kind.format(i) for i in range(30) for kind in kinds] + ["lone words here", "nobody speaks thus"]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"instruction": text, "output": "x", "task": text[:4]}) for text in texts))
    recipe.data.train = str(file)
    data = read_dataset(file)
    found = find_components(data.examples, recipe.components, recipe.model)
    assert (found.k, found.noise) == (2, 2)
    results = train(recipe, tmp_path / "adapter")
    assert (results.k, results.sizes) == (found.k, found.sizes)
    assert results.ari == pytest.approx(overlap(found.labels, data.tasks or []).ari)
    assert results.router_entropy_at_start == pytest.approx(0.6, abs=0.01)
    recipe.tuner.num_heads = found.k + 1
    with pytest.raises(ConfigError, match=rf"DBSCAN finds {found.k} components, but tuner.num_heads is {found.k + 1}"):
        train(recipe, tmp_path / "other")


def test_components_are_called_as_the_recipe_says(make_recipe: Make, tmp_path: Path) -> None:
    recipe: Any = make_recipe(max_steps=1)
    recipe.tuner.num_heads, recipe.components.k, recipe.components.names = None, 2, ["first", " "]
    components = train(recipe, tmp_path).components
    assert components[0].name == "first"
    assert components[1].name == ", ".join(components[1].terms[:3])
    recipe.components.names = ["first", "second", "third"]
    with pytest.raises(ConfigError, match="3 names for 2 components"):
        train(recipe, tmp_path / "other")
