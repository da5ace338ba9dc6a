"""Judging a model: one contract for every benchmark, a sandbox for generated programs, estimates with intervals.

`runner.evaluate` is the entry. `contract` holds what a benchmark and a back end are; each benchmark is one
module beside it.
"""
