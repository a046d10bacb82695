"""Tests of the engine, the app and the two in a browser."""
