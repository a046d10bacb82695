"""The computations of the Chat tab."""
