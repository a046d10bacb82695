"""Tests of the engine: properties and what a user sees. No network, no GPU, tiny random models."""
