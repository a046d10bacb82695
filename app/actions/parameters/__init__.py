"""What the Parameters tab computes, a file a view."""
