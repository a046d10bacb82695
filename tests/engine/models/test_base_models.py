"""Base models: found, refused, loaded, hashed; nothing in a folder is ever run."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hydralora.models.catalogue
import hydralora.models.fetching
import hydralora.models.loading
from hydralora import ModelError
from hydralora.models.adapters import load_adapted
from hydralora.models.catalogue import CATALOGUE, DEFAULT_MODEL, catalogue, find_model
from hydralora.models.device import pick_device
from hydralora.models.fetching import cache_folder, find_local
from hydralora.models.loading import empty_model, load_base, load_tokenizer
from tests.tiny_model import adapt, byte_tokenizer, shake, tiny_llama, write_tiny_model


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(model_folder, tmp_path / "model")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_the_catalogue_lists_what_the_contract_says() -> None:
    rows = catalogue()
    assert [row.id for row in rows] == [model.id for model in CATALOGUE]
    assert all(set(asdict(row)) == {"id", "source", "licence", "parameters", "folder", "ready", "hash"} for row in rows)
    assert rows[0].id == DEFAULT_MODEL == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert rows[0].licence == "Apache-2.0"
    assert not any(row.ready for row in rows)  # the tests' cache is empty
    assert {row.source for row in rows} == {"hub"}
    assert {row.folder for row in rows} == {row.hash for row in rows} == {None}


def test_a_folder_loads_as_it_was_saved(folder: Path, ids: torch.Tensor) -> None:
    files = find_model(str(folder))
    assert (files.source, files.folder) == ("folder", folder.resolve())
    model = load_base(files, "cpu")
    assert not model.training
    assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)
    assert load_tokenizer(files)("ä").input_ids == byte_tokenizer()("ä").input_ids
    assert pick_device() in ("cpu", "cuda", "mps")


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    load_base(find_model(str(folder)))


def test_the_hash_is_that_of_the_weights(model_folder: Path, folder: Path, tmp_path: Path) -> None:
    first = find_model(str(model_folder)).describe()
    assert len(first.hash) == 64
    assert find_model(str(folder)).hash == first.hash
    assert find_model(str(write_tiny_model(tmp_path / "other", seed=1))).hash != first.hash


def test_a_hash_is_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[Path] = []
    compute = hydralora.models.fetching.hash_weights

    def counted(path: Path) -> str:
        computed.append(path)
        return compute(path)

    monkeypatch.setattr(hydralora.models.fetching, "hash_weights", counted)
    first = find_model(str(folder)).hash
    assert find_model(str(folder)).hash == first
    assert len(computed) == 1
    assert json.loads((cache_folder() / "hashes.json").read_text(encoding="utf-8"))[str(folder)]["hash"] == first
    tiny_llama(seed=1).save_pretrained(folder)
    assert find_model(str(folder)).hash != first
    (cache_folder() / "hashes.json").write_text("{", encoding="utf-8")
    assert find_model(str(folder)).hash != first


def test_a_folders_own_word_for_its_hash_is_not_taken(folder: Path) -> None:
    wanted = find_model(str(folder)).hash
    (folder / "hydralora.json").write_text('{"source": "wheel", "hash": "made up"}', encoding="utf-8")
    assert find_model(str(folder)).hash == wanted


@pytest.fixture
def snapshot(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub client's folder of the model owner/tiny, complete."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owner--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    return shutil.copytree(model_folder, cached / "snapshots" / ("0" * 40))


def test_a_model_of_the_hubs_client_is_found(snapshot: Path) -> None:
    found = find_local("owner/tiny")
    assert found
    assert (found.source, found.folder) == ("hub", snapshot)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_interrupted_download_is_not_a_model(missing: str, snapshot: Path) -> None:
    (snapshot / missing).unlink()
    assert find_local("owner/tiny") is None


def test_every_part_of_split_weights_is_needed(snapshot: Path) -> None:
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = snapshot / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": parts}), encoding="utf-8")
    (snapshot / "model.safetensors").rename(snapshot / parts["a"])
    assert find_local("owner/tiny") is None
    shutil.copy(snapshot / parts["a"], snapshot / parts["b"])
    assert find_local("owner/tiny")
    index.write_text("{", encoding="utf-8")
    assert find_local("owner/tiny") is None


def test_the_shape_of_a_hub_model_needs_no_weights(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        if not local_files_only:
            asked.append(allow_patterns)
            shutil.copy(kept / "config.json", snapshot)
        return str(snapshot)

    kept = snapshot.rename(snapshot.parent / "kept")
    snapshot.mkdir()
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for module in (hydralora.models.catalogue, hydralora.models.loading):
        monkeypatch.setattr(module, "hub_reachable", lambda: True)
    model = empty_model("owner/tiny")
    assert asked == [["config.json"]]
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in tiny_llama().parameters())
    assert find_local("owner/tiny") is None


def test_no_name_is_not_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError):
        find_model("")


def test_a_tokenizer_without_padding_gets_one(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(find_model(str(folder)))
    assert loaded.pad_token_id == loaded.eos_token_id


def test_a_folder_without_a_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        find_model(str(folder))


def test_a_folder_with_only_a_bin_is_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors.*can run code"):
        find_model(str(folder))


CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "hostile"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.mark.parametrize("model_type", ["hostile", "llama"])
def test_code_in_a_folder_is_never_run(model_type: str, folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (folder / "code.py").write_text(CODE.format(marker=str(marker)), encoding="utf-8")
    remote = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    edit(folder / "config.json", model_type=model_type, auto_map=remote)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "code.Tokenizer"]})
    files = find_model(str(folder))
    load_tokenizer(files)
    loads: list[Callable[[], Any]] = [lambda: load_base(files), lambda: empty_model(str(folder))]
    for load in loads:  # a known architecture loads, by transformers' own code
        with pytest.raises(ModelError) if model_type == "hostile" else nullcontext():
            load()
    assert not marker.exists()


def damage_json(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")


def damage_type(folder: Path) -> None:
    (folder / "config.json").write_text("[1]", encoding="utf-8")


def damage_architecture(folder: Path) -> None:
    edit(folder / "config.json", model_type="nonesuch")


def damage_bytes(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def damage_shape(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=96)


def damage_names(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "damage", [damage_json, damage_type, damage_architecture, damage_bytes, damage_shape, damage_names]
)
def test_a_damaged_model_is_refused(damage: Any, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=str(folder)):
        load_base(find_model(str(folder)))


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_damaged_tokenizer_is_refused(content: str | None, folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
        if content:
            (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(find_model(str(folder)))


@pytest.mark.parametrize("name", ["nobody/nothing", "not a model id!", "", "../..", "x\0y", "~nobody-here/model"])
def test_a_model_that_cant_be_had_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        find_model(name)


def test_a_model_to_be_fetched_is_not_fetched_unasked() -> None:
    with pytest.raises(ModelError, match="Download it first"):
        find_model(DEFAULT_MODEL, download=False)


def test_an_adapter_that_doesnt_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    files, adapter = find_model(str(folder)), tmp_path / "adapter"
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        load_adapted(files, adapter)
    shake(adapt(tiny_llama(intermediate_size=96))).save_pretrained(adapter)
    with pytest.raises(ModelError, match=r"is not the adapter that .* describes on .*has the shape"):
        load_adapted(files, adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="the adapter's weights can't be read"):
        load_adapted(files, adapter)
