"""The control socket of a running fleet: `messages` on the wire, `server`, and its `commands`."""
