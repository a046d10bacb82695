"""What the Runs tab computes."""
