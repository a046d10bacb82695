"""What the Learn page computes."""
