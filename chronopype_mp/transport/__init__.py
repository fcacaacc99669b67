"""Frames between processes, and the only place that imports zmq.

`zeromq` is the real thing, `memory` its twin within one process; both carry the frames of
`chronopype_mp.core.codec`.
"""
