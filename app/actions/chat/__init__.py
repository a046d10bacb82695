"""What the Chat tab computes."""
