"""HydraLoRA: one shared A, several heads B, and a router that mixes them for every token, as a PEFT tuner.

Importing this package registers the method with PEFT, so that `PeftModel.from_pretrained` can load its adapters.
"""

from hydralora.tuner.registration import register as _register

_register()  # before the imports below, which import PEFT too

from hydralora.errors import ConfigError, DatasetError, HydraError, ModelError, RunError
from hydralora.inference.generation import generate
from hydralora.models.catalogue import find_model
from hydralora.runs.store import RunStore
from hydralora.training.run import train
from hydralora.transfer.bake import bake
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.gates import record_gates
from hydralora.tuner.loraplus import loraplus_optimizer
from hydralora.tuner.model import HydraLoraModel
from hydralora.tuner.published import load_official, save_official
from hydralora.tuner.router_init import init_router
from hydralora.tuner.steering import steer_gates

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "DatasetError",
    "HydraError",
    "HydraLoraConfig",
    "HydraLoraModel",
    "ModelError",
    "RunError",
    "RunStore",
    "bake",
    "find_model",
    "generate",
    "init_router",
    "load_official",
    "loraplus_optimizer",
    "record_gates",
    "save_official",
    "steer_gates",
    "train",
]
