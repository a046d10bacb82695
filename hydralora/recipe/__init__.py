"""What a run shall be: its settings, read from YAML, and presets of them."""
