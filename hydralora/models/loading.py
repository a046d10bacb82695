"""A base model in memory: its configuration, its tokenizer, its weights."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hydralora.errors import ModelError, first_line
from hydralora.models.catalogue import existing_folder, find_model
from hydralora.models.device import pick_device
from hydralora.models.fetching import BaseModelFiles, download_snapshot, find_local, hub_reachable

Quantization = Literal["none", "nf4"]


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


def load_base(files: BaseModelFiles, device: str | None = None, quantization: Quantization = "none") -> Any:
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


def load_model(folder: Path) -> Any:
    """A whole model of a folder, as transformers loads it: in the dtype that it was saved in, on the CPU.

    Raises:
        ModelError: it can't be loaded.
    """
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, trust_remote_code=False).eval()
    except Exception as error:
        raise ModelError(f"{folder}: the model can't be loaded. {first_line(error)}") from error


def _four_bits(device: str, dtype: Any) -> dict[str, Any]:
    """Options that make transformers quantise while loading: NF4 with quantised scales, as in QLoRA."""
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
    """Keep bitsandbytes from repacking weights in the first pass in eval mode, which it does on some CPUs.

    The repacked form rounds its scales to bfloat16, so a run's outputs would depend on which pass came first, and it
    needs widths that are multiples of 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


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
    """The number of weights that multiply a token: the model's matrices without its embedding tables."""
    from safetensors import safe_open

    total = 0
    for path in files.folder.glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys() if "embed" not in key]  # noqa: SIM118
        total += sum(math.prod(shape) for shape in shapes)
    return total


def _config_folder(name: str) -> Path:
    """A folder with the model's config.json; of a Hub model that isn't on this machine, only that file is fetched."""
    folder = existing_folder(name)
    if folder or find_local(name) or not hub_reachable():
        return folder or find_model(name).folder
    return download_snapshot(name, ["config.json"])
