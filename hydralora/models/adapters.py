"""What a run trained, an adapter or a whole model: read, hashed, loaded."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, PeftType

from hydralora.errors import ModelError, first_line
from hydralora.files import ADAPTER_WEIGHTS, weight_files
from hydralora.models.adapter_checks import check_adapter, read_tensors
from hydralora.models.fetching import BaseModelFiles
from hydralora.models.loading import Quantization, load_base


def load_adapted(
    files: BaseModelFiles,
    adapter: Path,
    device: str | None = None,
    quantization: Quantization = "none",
) -> Any:
    """The base model with a saved adapter on it, or a saved whole model, in eval mode.

    Raises:
        ModelError: the base or the adapter can't be read, or the adapter isn't safetensors.
    """
    if is_whole_model(adapter):
        return _load_whole(files, adapter, device)
    read_adapter_config(adapter)  # before minutes of loading
    return put_adapter(files, load_base(files, device, quantization), adapter)


def _load_whole(files: BaseModelFiles, folder: Path, device: str | None) -> Any:
    for path in weight_files(folder):
        read_tensors(path)
    return load_base(replace(files, folder=folder), device)


def is_whole_model(folder: Path) -> bool:
    """Whether the folder of what a run trained holds a whole model, and no adapter."""
    return any(file.name != ADAPTER_WEIGHTS for file in weight_files(folder))


def virtual_tokens(model: object) -> int:
    """The trained tokens that come before every row: those of an active adapter of prompt, P- or prefix tuning."""
    config = getattr(model, "active_peft_config", None)
    disabled = config is None or getattr(model, "_adapters_disabled", False)
    return 0 if disabled else getattr(config, "num_virtual_tokens", 0)


def inserted_outputs(model: object) -> int:
    """The outputs that a model gives before those of a row's own tokens; a prefix is in the cache, and has none."""
    config = getattr(model, "active_peft_config", None)
    return 0 if getattr(config, "peft_type", None) == PeftType.PREFIX_TUNING else virtual_tokens(model)


def without_adapter(model: object) -> AbstractContextManager[None]:
    """A context in which the model is its base model; a whole model that isn't trained yet is that anyway."""
    return model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()


def read_adapter_config(adapter: Path, weights: str = ADAPTER_WEIGHTS) -> Any:
    """The PEFT config of a saved adapter, whose weights are the file `weights` in its folder.

    Raises:
        ModelError: there is none, it can't be read, or its weights aren't safetensors.
    """
    if is_whole_model(adapter):
        raise ModelError(f"{adapter}: this is a whole model, as full fine-tuning saves it, and no adapter.")
    if not (adapter / weights).exists():
        raise ModelError(f"{adapter}: there is no {weights}. The run has saved no adapter yet.")
    try:
        return PeftConfig.from_pretrained(str(adapter))
    except Exception as error:
        raise ModelError(f"{adapter}: adapter_config.json can't be read. {first_line(error)}") from error


def put_adapter(
    files: BaseModelFiles, base: Any, adapter: Path, trainable: bool = False, dropout: float | None = None
) -> Any:
    """A loaded base model with a saved adapter on it, or a saved whole model beside it, in eval mode.

    Args:
        dropout: on the adapted layers' inputs; None keeps the saved value.

    Raises:
        ModelError: the adapter can't be loaded onto this base model, or its weights aren't those of its config.
    """
    if is_whole_model(adapter):
        return _load_whole(files, adapter, str(base.device))
    config = read_adapter_config(adapter)
    check_adapter(adapter, ADAPTER_WEIGHTS, files.folder)
    try:
        if dropout is not None:
            config.lora_dropout = dropout
        config.inference_mode = not trainable
        with without_known_warnings():
            return PeftModel.from_pretrained(base, str(adapter), is_trainable=trainable, config=config).eval()
    except Exception as error:
        raise ModelError(f"{adapter}: the adapter can't be loaded onto {files.id}. {first_line(error)}") from error


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """Without PEFT's warnings on a trained tied layer, which an adapter keeps whole and a merged export unties; and on
    AdaLoRA's ranks, which it uses after it has said that it ignores them."""
    with warnings.catch_warnings():
        for message in ("Model has `tie_word_embeddings=True`", "Input and output embeddings are no longer tied"):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        warnings.filterwarnings("ignore", message="The following rank_pattern keys", category=RuntimeWarning)
        yield


def hash_adapter(folder: Path) -> str:
    """sha256 of the weights of an adapter or a whole model."""
    digest = hashlib.sha256()
    for path in weight_files(folder) or [folder / ADAPTER_WEIGHTS]:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)  # of several files, as if they were one
    return digest.hexdigest()
