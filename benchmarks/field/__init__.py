"""Torch beside others, in one run, on the same faults: ``make bench-field``; ``docs/benchmark.md`` shows one run."""
