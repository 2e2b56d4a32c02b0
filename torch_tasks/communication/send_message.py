"""``python -m torch_tasks.communication.send_message AGENT "text"``: as ``torch-tasks send``, with the same options."""

from __future__ import annotations

import sys
from importlib import import_module

if __name__ == "__main__":
    import_module("torch_tasks.cli").main(["send", *sys.argv[1:]], prog_name="torch-tasks")
