"""The fake model as a process: ``python -m fakes.llm --port 0 --folder FOLDER``, with ``tests`` on PYTHONPATH."""

from __future__ import annotations

import argparse
from pathlib import Path

from fakes.llm.server import Server

parser = argparse.ArgumentParser(prog="fakes.llm", description="A language model that answers as its rules say.")
parser.add_argument("--port", type=int, default=0, help="0 takes a free one; the file FOLDER/port holds it")
parser.add_argument("--folder", type=Path, required=True, help="where the log goes")
arguments = parser.parse_args()

server = Server(arguments.port, arguments.folder)
port = arguments.folder / "port.new"
port.write_text(str(server.server_port))
port.rename(arguments.folder / "port")
print(f"The fake model listens at http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
