"""The Parameters tab, one file per view."""
