"""Processors for real servers, written as a user would; each module needs its client library."""
