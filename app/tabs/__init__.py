"""Widgets and wiring, one file a tab."""
