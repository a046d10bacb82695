"""What the Clusters tab computes."""
