"""One config per method."""
