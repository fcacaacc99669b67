"""The worker process: it hosts one processor."""
