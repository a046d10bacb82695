"""The Explore page, one file per view."""
