"""Experiments that anyone can run again, one file each."""
