"""The computations of the Lab page."""
