"""Experiments launched with flags."""
