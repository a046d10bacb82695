"""An adapter whose weights aren't those that its config describes is refused wherever it is read."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file

from hydralora import HydraError, ModelError, RunStore
from hydralora.analysis import read_weights
from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hydralora.inference.model_cache import ModelCache, load_run
from hydralora.models.adapter_checks import check_adapter
from hydralora.models.adapters import hash_adapter, put_adapter
from hydralora.models.catalogue import find_model
from hydralora.models.loading import load_base
from hydralora.recipe.methods import METHOD_NAMES
from hydralora.runs.run import Run
from hydralora.training.adapter_config import adapter_config
from hydralora.transfer import export_run, import_run
from tests.conftest import FinishedRun

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors, dict[str, Any]], None]


def first(tensors: Tensors) -> str:
    return min(tensors)


def fewer(tensors: Tensors, config: dict[str, Any]) -> None:
    for key in sorted(tensors)[2:]:
        del tensors[key]


def renamed(tensors: Tensors, config: dict[str, Any]) -> None:
    tensors["base_model.model.elsewhere.weight"] = tensors.pop(first(tensors))


def one_more(tensors: Tensors, config: dict[str, Any]) -> None:
    tensors["base_model.model.elsewhere.weight"] = torch.zeros(2)


def reshaped(tensors: Tensors, config: dict[str, Any]) -> None:
    tensors[first(tensors)] = torch.zeros(3, 3)


def value(number: float) -> Change:
    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        tensors[first(tensors)].view(-1)[-1] = number

    return change


def of_dtype(dtype: torch.dtype) -> Change:
    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        tensors[first(tensors)] = tensors[first(tensors)].to(dtype)

    return change


def configured(**values: object) -> Change:
    return lambda tensors, config: config.update(values)


CHANGES: dict[str, tuple[Change, str]] = {
    "fewer": (fewer, r"\d+ of \d+ weights are missing, such as"),
    "renamed": (renamed, "weights are missing"),
    "one more": (one_more, r"1 weights belong to no layer of it, such as 'base_model\.model\.elsewhere"),
    "reshaped": (reshaped, r"has the shape \(3, 3\) where"),
    "NaN": (value(float("nan")), "not finite"),
    "infinite": (value(float("-inf")), "not finite"),
    "whole numbers": (of_dtype(torch.int8), "dtype I8"),
    "double precision": (of_dtype(torch.float64), "dtype F64"),
    "other rank": (configured(r=3), "has the shape"),
    "a rank of billions": (configured(r=10**9), "has the shape"),
    "a rank that is no number": (configured(r="8; import os"), "can't be read|doesn't fit"),
    "a negative rank": (configured(r=-1), "can't be read|doesn't fit"),
    "a text as alpha": (configured(lora_alpha="8"), "can't be read|doesn't fit|can't be loaded"),
    "more heads": (configured(num_heads=10**6), "has the shape"),
    "other layers": (configured(target_modules=["q_proj"]), "weights are missing"),
    "layers that are not there": (configured(target_modules=["nowhere"]), "doesn't fit"),
}


@pytest.fixture(scope="module")
def exported(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run.zip"
    export_run(finished.run, "adapter", out)
    return out


def write(adapter: Path, change: Change) -> None:
    tensors, config = load_file(adapter / ADAPTER_WEIGHTS), json.loads((adapter / ADAPTER_CONFIG).read_text())
    change(tensors, config)
    save_file(tensors, adapter / ADAPTER_WEIGHTS)
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_with_another_adapter_is_not_loaded(name: str, finished: FinishedRun, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    folder = tmp_path / finished.run.id
    shutil.copytree(finished.run.folder, folder)
    write(folder / "adapter", change)
    with pytest.raises(ModelError, match=message):
        load_run(Run(folder))
    with pytest.raises(ModelError, match=message):
        ModelCache().run(Run(folder))


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_with_another_adapter_is_not_imported(
    name: str, exported: Path, store: RunStore, model_folder: Path, tmp_path: Path
) -> None:
    change, message = CHANGES[name]
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(exported) as archive:
        archive.extractall(unpacked)
    write(unpacked, change)
    about = json.loads((unpacked / "run.json").read_text())
    (unpacked / "run.json").write_text(json.dumps(about | {"adapter_hash": hash_adapter(unpacked)}))
    with zipfile.ZipFile(tmp_path / "changed.zip", "w") as archive:
        for path in unpacked.iterdir():
            archive.write(path, path.name)
    with pytest.raises(ModelError, match=message) as refused:
        import_run(store, tmp_path / "changed.zip", str(model_folder))
    assert str(store.folder) not in str(refused.value)
    assert store.all() == []
    assert list(store.folder.glob("*/*")) == []


@pytest.mark.parametrize("name", CHANGES)
def test_its_matrices_are_drawn_from_a_whole_file_or_not_at_all(
    name: str, finished: FinishedRun, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(finished.run.adapter, folder)
    change, message = CHANGES[name]
    write(folder, change)
    with pytest.raises(ModelError, match=message):
        read_weights(folder, model=finished.run.recipe().model)
    try:  # without the base model
        weights = read_weights(folder)
    except HydraError:
        return
    assert all(layer.a.isfinite().all() and layer.heads.isfinite().all() for layer in weights.values())


@pytest.mark.parametrize("pattern", ["(a+)+$", [".*(.*)*x"], {"q_proj": 1, "(.+)+": 2}, 7, [["q_proj"]]])
@pytest.mark.parametrize("setting", ["target_modules", "rank_pattern", "exclude_modules"])
def test_patterns_from_elsewhere_are_refused(
    setting: str, pattern: object, exported: Path, store: RunStore, model_folder: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(exported) as archive, zipfile.ZipFile(tmp_path / "changed.zip", "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name == ADAPTER_CONFIG:
                content = json.dumps(json.loads(content) | {setting: pattern}).encode()
            changed.writestr(name, content)
    with pytest.raises(ModelError, match=f"sets {setting} to something other than names"):
        import_run(store, tmp_path / "changed.zip", str(model_folder))


@pytest.mark.parametrize("method", [name for name in METHOD_NAMES if name != "full"])
def test_every_method_loads_its_own_adapter(
    method: str, make_recipe: Callable[..., Any], model_folder: Path, tmp_path: Path
) -> None:
    files = find_model(str(model_folder))
    base = load_base(files)
    recipe = make_recipe(method)
    get_peft_model(base, adapter_config(base, recipe, 3)).save_pretrained(str(tmp_path))
    check_adapter(tmp_path, ADAPTER_WEIGHTS, model_folder)
    assert put_adapter(files, load_base(files), tmp_path).active_adapter == "default"
