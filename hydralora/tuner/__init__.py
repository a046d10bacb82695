"""HydraLoRA as a PEFT tuner."""

import logging

# PEFT imports bitsandbytes wherever it is installed, which then warns on some CPUs of a faster kernel that it lacks.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
