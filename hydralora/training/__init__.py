"""Training: from a recipe to an adapter and its measurements."""
