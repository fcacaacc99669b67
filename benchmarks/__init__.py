"""Benchmarks: ratios to a reference that is measured in the same run, never one absolute time."""
