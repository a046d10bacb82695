"""The Parameters tab, a file a view."""
