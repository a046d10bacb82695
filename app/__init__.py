"""The browser app over the hydralora engine."""
