"""The computations of the Parameters tab, one file per view."""
