"""An agent worker that was told to end does end, whatever hangs in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HANGS = """
import time
from torch_tasks.workers.host import agent_worker


class Hung:
    def detach(self):
        print("told", flush=True)


agent_worker._END_SECONDS = 0.2
agent_worker.begin_to_end(Hung())
time.sleep(60)  # where it hangs
"""


def test_a_worker_that_hangs_when_it_ends_says_where_and_is_ended(tmp_path: Path) -> None:
    program = tmp_path / "hangs.py"
    program.write_text(HANGS)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=50)
    line = HANGS.splitlines().index("time.sleep(60)  # where it hangs") + 1
    assert (done.returncode, done.stdout) == (1, "told\n")
    assert f'File "{program}", line {line} in <module>' in done.stderr
