"""What Torch costs, against plain Celery on the same broker in the same run.

    python -m benchmarks                     all of them, about ten minutes
    python -m benchmarks idle --quick        one, with less patience
    python -m benchmarks enqueue --json -    and the numbers as JSON on the standard output

Each benchmark prints one table; all numbers of a run are also written to ``benchmarks/results/<date>.json``. They are
for people to read: a machine is noisy, so the goals are ratios and differences within one run, values are medians,
and no test asserts any of them.
"""

import sys
from pathlib import Path

_TESTS = Path(__file__).parent.parent / "tests"
# The fake agent and the fake model live there.
sys.path += [str(_TESTS), str(_TESTS / "integration"), str(_TESTS / "real_agents")]
