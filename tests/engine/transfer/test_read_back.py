"""Exports are loaded as their users load them, and are the model that was measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import hydralora.transfer.exporting
from hydralora import RunError, RunStore, train
from hydralora.inference.model_cache import load_run
from hydralora.recipe.settings import Recipe
from hydralora.runs.run import Run
from hydralora.transfer import export_run
from hydralora.transfer.read_back import EXACT
from tests.chat_templates import base_model_tokenizer
from tests.known import known
from tests.tiny_model import CHAT_TEMPLATE, SPECIALS, write_tiny_model

Make = Callable[..., Recipe]


def trained(recipe: Recipe, store: RunStore) -> Run:
    run = store.create(recipe)
    results = train(recipe, run.adapter)
    run.update(state="finished", step=recipe.training.max_steps, results=results, base=results.base_model)
    return run


def recipe_of(make_recipe: Make, model: Path, method: str, modules: list[str] | None, **settings: Any) -> Recipe:
    recipe = make_recipe(method, {"modules_to_save": modules, "router_init": "random"}, learning_rate=2e-2)
    return recipe.model_copy(update={"model": str(model), **settings})


@pytest.mark.parametrize("method", ["hydralora", "lora"])
@pytest.mark.parametrize("modules", [None, ["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_every_export_is_the_run(
    method: str, modules: list[str] | None, tied: bool, make_recipe: Make, store: RunStore, tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "base", sharpness=20, tie_word_embeddings=tied)
    run = trained(recipe_of(make_recipe, model, method, modules), store)
    for form in ("adapter", "lora", "merged"):
        exported = export_run(run, form, tmp_path / form)
        assert abs(known(exported.difference) - (exported.kl or 0)) < EXACT + 0.05 * (exported.kl or 0), form
        assert (exported.kl is None) == (form == "adapter" or method == "lora")
        assert exported.full_precision is None
        assert "nats per token from the run" in exported.comparison


def test_an_export_that_is_another_model_is_refused_and_leaves_nothing(
    make_recipe: Make, store: RunStore, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(recipe_of(make_recipe, model_folder, "lora", None), store)
    real = hydralora.transfer.exporting.load_adapted

    def broken(*arguments: Any) -> Any:
        model = real(*arguments)
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(3)
        return model

    monkeypatch.setattr(hydralora.transfer.exporting, "load_adapted", broken)
    with pytest.raises(RunError, match=r"not the model that was measured: it is .* nats per token"):
        export_run(run, "merged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_half_precision_is_told(make_recipe: Make, store: RunStore, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "base", sharpness=20)
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(model)
    run = trained(recipe_of(make_recipe, model, "lora", None), store)
    assert known(export_run(run, "merged", tmp_path / "merged").difference) < EXACT


def test_a_base_in_four_bits_has_a_figure_for_each_precision(
    make_recipe: Make, store: RunStore, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    model = write_tiny_model(tmp_path / "base", sharpness=20)
    run = trained(recipe_of(make_recipe, model, "hydralora", None, quantization="nf4"), store)
    exported = export_run(run, "adapter", tmp_path / "adapter")
    assert known(exported.difference) < EXACT < known(exported.full_precision)
    assert "in full precision" in exported.comparison


def test_the_published_format_is_the_run(
    make_recipe: Make, store: RunStore, model_folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(make_recipe, model_folder, "hydralora", None)
    run = trained(recipe, store)
    assert known(export_run(run, "official", tmp_path / "official").difference) < EXACT


def test_a_merged_model_ends_its_answers_by_itself(make_recipe: Make, store: RunStore, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "base", eos_token_id=SPECIALS.index("</s>"))
    base_model_tokenizer(CHAT_TEMPLATE).save_pretrained(model)
    run = trained(recipe_of(make_recipe, model, "lora", None), store)
    export_run(run, "merged", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.generation_config.eos_token_id == [SPECIALS.index("</s>"), SPECIALS.index("<|im_end|>")]
    assert "eos_token_id=[2, 4]" in (run.adapter / "README.md").read_text(encoding="utf-8")


def test_a_run_whose_base_is_gone_is_exported_and_says_that_it_was_not_read(
    make_recipe: Make, store: RunStore, tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "base")
    run = trained(recipe_of(make_recipe, model, "hydralora", None), store)
    model.rename(tmp_path / "elsewhere")
    exported = export_run(run, "adapter", tmp_path / "adapter")
    assert exported.difference is None
    assert "not read back" in exported.comparison
    with pytest.raises(Exception, match="base"):
        load_run(run)
