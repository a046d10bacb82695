"""The computations of the Train tab."""
