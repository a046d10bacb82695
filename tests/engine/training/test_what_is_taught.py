"""From rows to answers: a tiny base learns a few rows by every kind of template, answers them, and stops."""

import json
from pathlib import Path
from typing import Any

import pytest

from hydralora.data.encoding import encode_prompt
from hydralora.inference.generation import Sampling, answer_batch, generate
from hydralora.models.adapters import load_adapted
from hydralora.models.catalogue import find_model
from hydralora.models.loading import load_tokenizer
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import Event, NoteEvent
from hydralora.training.monitor import Monitor
from hydralora.training.run import train
from tests.chat_templates import MARKS, NAMES, base_model_tokenizer
from tests.tiny_model import SPECIALS, write_tiny_model

ROWS = {"a?": "plum", "bb?": "saw", "c c?": "nine o", "dd d?": "x"}
LONGEST = 40


def base_model(folder: Path, template: str | None) -> Path:
    write_tiny_model(folder, sharpness=20, eos_token_id=SPECIALS.index("</s>"))
    base_model_tokenizer(template).save_pretrained(folder)
    return folder


def recipe_for(model: Path, rows: list[dict[str, Any]], folder: Path) -> Recipe:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    heldout = folder / "heldout.jsonl"
    heldout.write_text(json.dumps({"prompt": "other", "completion": "row"}), encoding="utf-8")
    return parse_recipe(
        {
            "model": str(model),
            "data": {"train": str(file), "eval": str(heldout)},
            "tuner": {"r": 16, "num_heads": 2, "router_init": "random"}
            | {
                "target_modules": ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"],
                "modules_to_save": ["lm_head"],
            },
            "training": {"max_steps": 120, "batch_size": 4, "learning_rate": 2e-2, "eval_every": 0, "threads": 1},
        }
    )


def learn(recipe: Recipe, folder: Path) -> tuple[Any, Any, list[Event]]:
    events: list[Event] = []
    train(recipe, folder / "adapter", Monitor(events.append))
    files = find_model(recipe.model)
    return load_adapted(files, folder / "adapter"), load_tokenizer(files), events


@pytest.mark.slow
@pytest.mark.parametrize("template", [*MARKS, None], ids=[*NAMES, "none"])
def test_the_answer_is_the_rows_and_ends(template: str | None, tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "completion": answer} for prompt, answer in ROWS.items()]
    recipe = recipe_for(base_model(tmp_path / "base", template), rows, tmp_path)
    model, tokenizer, _ = learn(recipe, tmp_path)
    for prompt, answer in ROWS.items():
        asked = [{"role": "user", "content": prompt}]
        tokens = list(generate(model, tokenizer, asked, Sampling(max_new_tokens=LONGEST)))
        assert "".join(token.text for token in tokens) == answer
        assert answer_batch(model, tokenizer, [encode_prompt(tokenizer, asked)], LONGEST) == [answer]


@pytest.mark.slow
def test_every_turn_is_learnt_by_a_template_that_rewrites_them(tmp_path: Path) -> None:
    template = next(template for template, name in zip(MARKS, NAMES, strict=True) if name == "drops reasoning")
    turns = [("a?", "plum", "red"), ("b?", "saw", "tool")]
    messages = [
        message
        for prompt, answer, reason in turns
        for message in (
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer, "reasoning": reason},
        )
    ]
    rows = [{"messages": messages}, {"messages": messages[:2]}]
    recipe = recipe_for(base_model(tmp_path / "base", template), rows, tmp_path)
    (tmp_path / "heldout.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "x"}, messages[1]]}))
    model, tokenizer, _ = learn(recipe, tmp_path)
    history = [messages[0], {"role": "assistant", "content": "plum"}, messages[2]]
    for asked, expected in ((messages[:1], "<think>red</think>plum"), (history, "<think>tool</think>saw")):
        tokens = list(generate(model, tokenizer, asked, Sampling(max_new_tokens=LONGEST)))
        assert "".join(token.text for token in tokens) == expected


@pytest.mark.slow
def test_a_run_says_before_training_what_its_rows_and_its_template_lack(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", next(iter(MARKS)))
    rows: list[dict[str, Any]] = [{"prompt": prompt, "completion": answer} for prompt, answer in ROWS.items()]
    rows += [{"prompt": "say <|im_end|> now", "completion": "no"}, {"prompt": "count", "completion": 3}]
    recipe = recipe_for(base, rows, tmp_path)
    recipe.training.max_steps = 1
    _, _, events = learn(recipe, tmp_path)
    (prepared,) = [event for event in events if isinstance(event, NoteEvent) and event.rows]
    assert prepared.rows is not None
    assert prepared.rows.notes == {"control-token": 1, "value-as-text": 1}
    assert "1 control-token" in prepared.line()
    checks = {check.name: check for check in prepared.template_checks or ()}
    assert checks["end-awaited"].state == "note"
    assert "eos_token_id=4" in checks["end-awaited"].fix
