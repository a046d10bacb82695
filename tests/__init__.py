"""Tests of the engine, of the app, and of both in a browser; none of them needs a network."""

import os

USER_ENVIRONMENT = dict(os.environ)
os.environ["HF_HUB_OFFLINE"] = "1"  # here, because huggingface_hub reads it when it is imported
