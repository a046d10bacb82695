"""Custom HTML components: a Python wrapper each, with its script and style beside it."""
