"""The Clusters tab."""
