"""The parent's side: it publishes ticks, receives reports, and does what the supervisor decides."""
