"""Runs as folders: their state and events, the queue, the processes that work on them."""
