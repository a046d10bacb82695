"""Our own HTML components: a Python wrapper, with its script and style beside it."""
