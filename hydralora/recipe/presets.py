"""Settings for three purposes, as changes of the defaults."""

from typing import Any

# Settings for three purposes, as changes of the defaults. "Paper" is the published script's (r, alpha, dropout, heads,
# learning rate, warmup, batch, length: github.com/Clin0212/HydraLoRA), since the paper names few of them.
PRESETS: dict[str, dict[str, Any]] = {
    "Quick look": {"training.max_steps": 40, "training.max_length": 256, "training.eval_every": 10},
    "Default": {},
    "Paper": {
        "tuner.r": 4,
        "tuner.num_heads": 4,
        "tuner.lora_alpha": 32,
        "tuner.lora_dropout": 0.05,
        "tuner.router_init": "random",
        "training.max_steps": None,
        "training.epochs": 1,
        "training.batch_size": 1,
        "training.gradient_accumulation": 8,
        "training.learning_rate": 2e-4,
        "training.warmup_ratio": 0.03,
        "training.max_length": 1024,
    },
    "Careful": {
        "training.max_steps": None,
        "training.epochs": 3,
        "training.learning_rate": 1e-3,
        "training.eval_every": 50,
        "training.keep_checkpoints": 3,
    },
}
