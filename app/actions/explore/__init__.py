"""The computations of the Explore page, one file per view."""
