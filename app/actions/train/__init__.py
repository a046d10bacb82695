"""What the Train tab computes."""
