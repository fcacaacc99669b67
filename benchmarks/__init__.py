"""Benchmarks. Figures are ratios to a reference measured in the same run, not only absolute times.

`registry` lists the benchmarks. Each one is a module whose ``measure(quick)`` returns a
`report.Result`. They share these modules:

- `rounds`: interleaved repeats
- `report`: rows and reports
- `measures`: percentiles, CPU time and memory
- `probes`: our processors
- `stamping`: the times at which ticks are published
- `bare`, `readers`: the references without a framework, on the owner's and on the process's side
- `peers`: the alternatives to this package
"""
