"""HydraLoRA: one shared A, several heads B, and a router that mixes them for every token, as a PEFT tuner.

Importing this package registers the method with PEFT, so that `PeftModel.from_pretrained` can load its adapters.
"""

from hydralora import tuner as tuner  # before anything imports PEFT: it quietens what PEFT imports
from hydralora.bake import bake
from hydralora.errors import ConfigError, DatasetError, HydraError, ModelError, RunError
from hydralora.gates import record_gates
from hydralora.generation import generate
from hydralora.models import find_model
from hydralora.runs import RunStore
from hydralora.steering import steer_gates
from hydralora.training import train
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.convert import load_official, save_official
from hydralora.tuner.init import init_router
from hydralora.tuner.model import HydraLoraModel, register

register()

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
    "record_gates",
    "save_official",
    "steer_gates",
    "train",
]
