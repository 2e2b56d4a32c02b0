"""A person's own tmux server, the programs that run there, and the old tools that send to them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import short_folder
from waiting import until

SEND = str(Path(sys.executable).with_name("send-claude-message.sh"))
#: Logs what it reads; ``frames`` asks for bracketed paste, ``echo`` shows what it reads as an input line would.
READER = """
import os, sys, tty
tty.setraw(0)
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
if "frames" in sys.argv: os.write(1, b"\\x1b[?2004h")
os.write(1, b"ready\\r\\n> ")
while True:
    data = os.read(0, 4096)
    os.write(log, data)
    if "echo" in sys.argv:
        shown = data.replace(b"\\x1b[200~", b"").replace(b"\\x1b[201~", b"").replace(b"\\n", b"\\r\\n  ")
        os.write(1, shown.replace(b"\\r", b"\\r\\n> ") if data == b"\\r" else shown)
"""
LINES = """
import sys
log = open(sys.argv[1], "ab", 0)
print("ready", flush=True)
for line in sys.stdin.buffer: log.write(line)
"""


class Desk:
    """A person's terminal: a tmux server, and the tools."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        users = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH_", "TMUX"))}
        nobody = {"TORCH_BROKER_URL": "redis://127.0.0.1:1/0", "TORCH_STATE_DIR": str(folder / "state")}
        self.env = {**users, **nobody, "TMUX_TMPDIR": str(folder), "PS1": "$ "}

    def tmux(self, *words: str) -> str:
        """What tmux answers."""
        argv = ["tmux", "-u", "-f", "/dev/null", *words]
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, check=True, timeout=20).stdout

    def session(self, name: str, *command: str, shows: str = "") -> str:
        """Start a session; returns its pane's id once the screen shows this."""
        pane = self.tmux(
            "new-session", "-dP", "-F", "#{pane_id}", "-x", "100", "-y", "30", "-s", name, *command
        ).strip()
        until(lambda: shows in self.screen(pane), f"{name} shows {shows!r}")
        return pane

    def reader(self, name: str, *how: str) -> Path:
        """Start a session with a program that reads each key; returns the file with what it read."""
        log = self.folder / name
        self.session(name, sys.executable, "-c", READER, str(log), *how, shows="ready")
        return log

    def lines(self, name: str) -> Path:
        """Start a session with a program that reads lines."""
        log = self.folder / name
        self.session(name, sys.executable, "-c", LINES, str(log), shows="ready")
        return log

    def screen(self, target: str) -> str:
        """What the pane shows."""
        return self.tmux("capture-pane", "-p", "-t", target)

    def begin(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start the script."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([SEND, *words], env={**self.env, **env}, text=True, **pipes)

    def send(self, target: str, *words: str, code: int = 0, **env: str) -> str:
        """Run the script; what it said on stdout, or on stderr if it is to fail."""
        process = self.begin(target, *words, **env)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{process.returncode}: {out}{err}"
        assert out == (f"Message sent to {target}: {' '.join(words)}\n" if code == 0 else "")
        return err


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose tmux server has ended afterwards."""
    desk = Desk(short_folder())
    for name in [name for name in os.environ if name.startswith("TMUX")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TMUX_TMPDIR", str(desk.folder))
    yield desk
    socket = desk.folder / f"tmux-{os.getuid()}" / "default"
    subprocess.run(["tmux", "-S", socket, "kill-server"], capture_output=True, check=False)
    shutil.rmtree(desk.folder)


def read(log: Path, size: int) -> bytes:
    """What the program has read, at least so much."""
    until(lambda: log.exists() and log.stat().st_size >= size, f"{size} bytes in {log.name}")
    return log.read_bytes()
