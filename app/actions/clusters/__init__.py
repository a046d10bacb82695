"""The computations of the Clusters tab."""
