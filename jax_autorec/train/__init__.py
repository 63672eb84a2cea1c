"""Training; knows of no search."""
