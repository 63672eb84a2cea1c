"""Flax modules; none knows that it is searched."""
