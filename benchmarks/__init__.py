"""Benchmarks: ratios to a reference that is measured in the same run, never one absolute time.

`registry` names them; each is a module with ``measure(quick)``, which returns a `report.Result`.
What they share: `rounds` (repeats, interleaved), `report` (rows), `measures` (percentiles, CPU,
memory), `probes` (our processors), `stamping` (when a tick is published), `bare` and `readers` (the
references without a framework: the owner's side and the process' side), `peers` (what users would
use instead).
"""
