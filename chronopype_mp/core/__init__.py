"""Pure decisions: no asyncio, sockets, processes, files or clock reads in here.

The time ``now`` and the random source come in as arguments, so that every rule can be tested on
its own and with generated input.
"""
