"""A clock that ticks processors, each in a worker process of its own, over ZeroMQ."""
