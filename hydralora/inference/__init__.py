"""Using models: loss, evaluation, generation with gates."""
