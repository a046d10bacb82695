"""Models at work: loss, evaluation, answers with their gates."""
