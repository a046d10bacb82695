"""HydraLoRA as a PEFT tuner."""
