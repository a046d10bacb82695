"""Speed and memory as ratios between named contestants, measured in one run."""
