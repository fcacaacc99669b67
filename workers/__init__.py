"""Ready-made processors, one per file."""
