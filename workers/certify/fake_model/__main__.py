"""The fake model as a process: ``python -m torch_tasks.workers.certify.fake_model --port 0 --folder FOLDER``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from torch_tasks.system.loops import in_background
from torch_tasks.workers.certify.fake_model.server import Server

parser = argparse.ArgumentParser(prog="fake_model", description="A language model that answers as its rules say.")
parser.add_argument("--port", type=int, default=0, help="0 takes a free one; the file FOLDER/port holds it")
parser.add_argument("--folder", type=Path, required=True, help="where the log goes")
arguments = parser.parse_args()


def _end_with_parent() -> None:
    """However the process ends that holds the other end of the standard input, this one ends, too."""
    sys.stdin.read()
    os._exit(0)


in_background("end with parent", _end_with_parent)
server = Server(arguments.port, arguments.folder)
port = arguments.folder / "port.new"
port.write_text(str(server.server_port))
port.rename(arguments.folder / "port")
server.serve_forever()
