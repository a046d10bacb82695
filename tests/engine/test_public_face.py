"""What `import hydralora` gives, and what it costs."""

import inspect
import subprocess
import sys
import time
from dataclasses import MISSING, fields

import pytest
from peft import PeftConfig

import hydralora
from hydralora import HydraLoraConfig

ERRORS = {"ConfigError", "DatasetError", "HydraError", "ModelError", "RunError"}
# Parameters in order, with their defaults: whoever changes one breaks someone's program.
SIGNATURES = {
    "HydraLoraModel": "model, peft_config, adapter_name, low_cpu_mem_usage=False, state_dict=None",
    "RunStore": "workspace=None",
    "bake": "model, weights='mean', batches=None",
    "find_model": "name, download=True",
    "generate": "model, tokenizer, messages, sampling=None, adapter=True, lock=None, steering=None, alternatives=0, "
    "on_prompt=None",
    "init_router": "model, rows, labels, entropy=0.6, rows_per_component=24, shrinkage=0.1, on_progress=None",
    "load_official": "model, folder",
    "loraplus_optimizer": "model, optimizer_cls, lr, loraplus_lr_ratio, loraplus_weight_decay=0.0, "
    "loraplus_lr_embedding=0.0, kwargs",
    "record_gates": "model, max_tokens=4096, on_pass=None",
    "save_official": "model, folder",
    "steer_gates": "model, pin=None, mute=(), uniform=False, temperature=None, top_k=None, layers=None, levels=None",
    "train": "recipe, output, monitor=None, resume=None",
}
OPTIONS = {
    "r": 8,
    "num_heads": 3,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "router_input": "latent",
    "router_bias": None,
    "router_init": "random",
    "router": "softmax",
    "router_norm": False,
    "router_scope": "token",
    "train_router": True,
    "top_k": None,
    "balance_weight": 0.0,
    "gate_information": 0.0,
    "head_init": "zeros",
    "head_dropout": 0.0,
    "shared_A": True,
    "cores": False,
    "vectors": False,
    "target_modules": None,
    "exclude_modules": None,
    "layers_to_transform": None,
    "layers_pattern": None,
    "modules_to_save": None,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "init_weights": True,
}
HEAVY = ["gguf", "gradio", "kneed", "matplotlib", "plotly", "sentence_transformers", "sklearn", "typer", "umap"]
MOST = 2.0  # times what the import of PEFT and transformers' Trainer takes, which cannot be avoided


def test_what_is_exported_is_what_is_promised() -> None:
    exported = {name for name, value in vars(hydralora).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert sorted(exported) == hydralora.__all__
    assert exported == ERRORS | SIGNATURES.keys() | {"HydraLoraConfig"}


def test_signatures_stay() -> None:
    for name, expected in SIGNATURES.items():
        items = inspect.signature(getattr(hydralora, name)).parameters.values()
        found = [item.name if item.default is item.empty else f"{item.name}={item.default!r}" for item in items]
        assert ", ".join(found) == expected, name
    assert all(issubclass(getattr(hydralora, name), hydralora.HydraError) for name in ERRORS)


def test_the_configs_options_and_their_defaults_stay() -> None:
    inherited = {option.name for option in fields(PeftConfig)}
    defaults = {
        option.name: option.default if option.default_factory is MISSING else option.default_factory()
        for option in fields(HydraLoraConfig)
        if option.name not in inherited
    }
    assert defaults == OPTIONS


def test_importing_the_engine_is_silent_and_light() -> None:
    code = f"import sys, hydralora; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.slow
def test_importing_the_engine_takes_little_more_than_importing_peft() -> None:
    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return time.perf_counter() - start

    ours, theirs = (
        min(times)
        for times in zip(
            *(
                (seconds("import hydralora"), seconds("import peft, transformers; transformers.Trainer"))
                for _ in range(2)
            ),
            strict=True,
        )
    )
    assert ours < MOST * theirs
