"""Base models and adapters on disk and in memory."""
