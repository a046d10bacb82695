"""Checks of a base model's chat template: each question has a model that fails it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

from hydralora.cli.options import app
from hydralora.data.template_checks import Check, check_base, check_template
from hydralora.models.catalogue import find_model
from hydralora.models.loading import load_tokenizer
from tests.chat_templates import NO_MARK, QWEN, THINKS, ZEPHYR, base_model_tokenizer
from tests.tiny_model import CHAT_TEMPLATE, SPECIALS, write_tiny_model

ALL = {
    "template-present", "template-renders", "end-written", "end-awaited", "one-bos", "prompt-is-prefix", "turns-kept",
    "contents-as-text", "marks-trained",
}  # fmt: skip


def states(checks: list[Check]) -> dict[str, str]:
    """Those that are not ok."""
    return {check.name: check.state for check in checks if check.state != "ok"}


def check(template: str | None, configured: tuple[int, ...] = (), adds_bos: bool = False) -> dict[str, str]:
    tokenizer = base_model_tokenizer(template)
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return states(list(check_template(tokenizer, configured)))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, {"template-present": "note"}),
        (CHAT_TEMPLATE, {"end-awaited": "note"}),
        (ZEPHYR, {}),
        (QWEN, {"end-awaited": "note", "turns-kept": "note"}),
        (NO_MARK, {"end-written": "note"}),
        (THINKS, {"end-awaited": "note", "prompt-is-prefix": "note", "turns-kept": "note"}),
        ("{{ raise_exception('no') }}", {"template-renders": "problem"}),
        ("{% if %}", {"template-renders": "problem"}),
    ],
    ids=["none", "ChatML", "eos", "drops reasoning", "no mark", "asks to think", "refuses", "broken"],
)
def test_each_kind_of_template(template: str | None, expected: dict[str, str]) -> None:
    assert check(template) == expected


def test_a_configured_end_is_awaited() -> None:
    assert check(CHAT_TEMPLATE, (2, 4)) == {}


def test_bos_once() -> None:
    assert check(ZEPHYR, adds_bos=True) == {"one-bos": "note"}
    assert check("{{ bos_token }}" + ZEPHYR, adds_bos=True) == {"one-bos": "note"}
    assert check("{{ bos_token }}" + ZEPHYR) == {}


def base_model(folder: Path, template: str, change: Any = None) -> Path:
    write_tiny_model(folder, eos_token_id=SPECIALS.index("</s>"))
    base_model_tokenizer(template).save_pretrained(folder)
    if change is not None:
        weights = load_file(folder / "model.safetensors")
        change(weights["lm_head.weight"])
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


END = SPECIALS.index("<|im_end|>")


def zero(rows: torch.Tensor) -> None:
    rows[END] = 0


def mean(rows: torch.Tensor) -> None:
    rows[END] = rows.mean(0)


def twin(rows: torch.Tensor) -> None:
    rows[END] = rows[END - 2]


@pytest.mark.parametrize("change", [zero, mean, twin])
def test_a_mark_that_the_base_never_learnt_is_said(change: Any, tmp_path: Path) -> None:
    files = find_model(str(base_model(tmp_path / "base", CHAT_TEMPLATE, change)))
    found = {each.name: each for each in check_base(files, load_tokenizer(files))}
    assert set(found) == ALL
    assert found["marks-trained"].state == "problem"
    assert "<|im_end|>" in found["marks-trained"].found
    assert "modules_to_save" in found["marks-trained"].fix
    assert states(check_base(files, load_tokenizer(files), ["lm_head"]))["marks-trained"] == "note"


def test_the_command_prints_every_check(tmp_path: Path) -> None:
    folder = base_model(tmp_path / "base", CHAT_TEMPLATE)
    result = CliRunner().invoke(app, ["models", "check", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    checks = json.loads(result.stdout)["checks"]
    assert {each["name"] for each in checks} == ALL
    assert all(each["fix"] or each["state"] == "ok" for each in checks)
    shown = CliRunner().invoke(app, ["models", "check", str(folder)]).stdout
    assert "eos_token_id=4" in shown
    missing = CliRunner().invoke(app, ["models", "check", str(tmp_path / "none"), "--json"])
    assert missing.exit_code == 1
    assert json.loads(missing.stdout)["error"]["kind"] == "model"
