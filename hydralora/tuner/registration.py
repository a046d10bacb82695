"""Registration of HydraLoRA with PEFT."""

import logging

# PEFT imports bitsandbytes wherever it is installed, which warns on some CPUs that a faster kernel is missing.
NOISY = "bitsandbytes.backends.cpu.ops"


def register() -> None:
    """Add the method to PEFT's tables, so that `PeftModel.from_pretrained` loads its adapters.

    If PEFT is not imported yet, this imports it without that warning. PEFT's own `register_peft_method` rejects
    names outside its enum.
    """
    logger = logging.getLogger(NOISY)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from peft import mapping
    finally:
        logger.setLevel(level)

    from hydralora.tuner.config import HydraLoraConfig, HydraPeftType
    from hydralora.tuner.model import HydraLoraModel
    from hydralora.tuner.peft_helpers import extend_helpers

    name = HydraPeftType.HYDRALORA
    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[name] = HydraLoraConfig  # type: ignore[index]
    mapping.PEFT_TYPE_TO_TUNER_MAPPING[name] = HydraLoraModel  # type: ignore[index]
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING[name] = HydraLoraModel.prefix  # type: ignore[index]
    mapping.PEFT_TYPE_TO_MIXED_MODEL_MAPPING[name] = HydraLoraModel  # type: ignore[index]  # which then says no itself
    extend_helpers()
