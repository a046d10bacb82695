"""The computations of the Components page."""
