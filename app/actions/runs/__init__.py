"""The computations of the Runs tab."""
