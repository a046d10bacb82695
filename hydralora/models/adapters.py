"""Saved adapters: read, hashed, loaded onto a base model."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydralora.errors import HydraError, ModelError, first_line
from hydralora.files import ADAPTER_WEIGHTS
from hydralora.models.fetching import BaseModelFiles
from hydralora.models.loading import Quantization, load_base


def load_adapted(
    files: BaseModelFiles,
    adapter: Path,
    device: str | None = None,
    quantization: Quantization = "none",
) -> Any:
    """The base model with a saved adapter on it, in eval mode.

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
    """A loaded base model with a saved adapter on it, in eval mode.

    Args:
        dropout: on the adapted layers' inputs; None keeps the saved value.

    Raises:
        ModelError: the adapter can't be loaded onto this base model.
    """
    from peft import PeftModel

    try:
        config = read_adapter_config(adapter)
        if dropout is not None:
            config.lora_dropout = dropout
        config.inference_mode = not trainable
        with trained_embeddings():
            return PeftModel.from_pretrained(base, str(adapter), is_trainable=trainable, config=config).eval()
    except HydraError:
        raise
    except Exception as error:
        raise ModelError(f"{adapter}: the adapter can't be loaded onto {files.id}. {first_line(error)}") from error


@contextmanager
def trained_embeddings() -> Iterator[None]:
    """Without PEFT's warnings on a trained tied layer: an adapter keeps it whole, a merged export unties it."""
    with warnings.catch_warnings():
        for message in ("Model has `tie_word_embeddings=True`", "Input and output embeddings are no longer tied"):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield


def hash_adapter(folder: Path) -> str:
    """sha256 of an adapter's weights."""
    with (folder / ADAPTER_WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
