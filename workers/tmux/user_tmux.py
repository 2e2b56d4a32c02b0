"""The user's own tmux, which Torch neither starts nor attaches to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch_tasks.caller import caller
from torch_tasks.errors import AgentUnavailable, NotDelivered
from torch_tasks.machine.user_panes import UserPane
from torch_tasks.workers.tmux.control import ControlClient
from torch_tasks.workers.tmux.delivery import TerminalLine, TextDelivery, locked_line
from torch_tasks.workers.tmux.pane import AgentPane
from torch_tasks.workers.tmux.server import AgentServer, TmuxAnswer, require_tmux

LOCK_SECONDS = 60.0
"""How long a sender waits until other senders release the pane."""

_FIELDS = (
    "pane_id",
    "session_name",
    "session_attached",
    "window_id",
    "window_index",
    "window_name",
    "window_active",
    "window_panes",
    "window_layout",
    "pane_index",
    "pane_active",
)
_LIST = "\t".join(f"#{{{field}}}" for field in _FIELDS)  # tmux lets no name have a tab


class LocalUserTmux:
    """What :class:`torch_tasks.machine.user_panes.UserTmux` promises."""

    def __init__(self, socket: str | None = None) -> None:
        require_tmux()
        self._server = UserServer(Path(socket) if socket else None)
        self.place = str(self._server.socket)

    def panes(self) -> list[UserPane]:
        answer = self._server.ask("list-panes", "-a", "-F", _LIST)
        return [_parse(line) for line in answer.stdout] if answer else []

    def server_pid(self) -> int | None:
        """The server's process, which tells its pane ids from those of a later server."""
        answer = self._server.ask("display-message", "-p", "#{pid}")
        return int(answer.stdout[0]) if answer and answer.stdout else None

    def content(self, pane: UserPane, lines: int) -> str:
        answer = self._server.ask("capture-pane", "-p", "-t", pane.pane_id, "-S", str(-lines))
        shown = "\n".join(answer.stdout if answer else []).rstrip().split("\n")
        return "".join(f"{line.rstrip()}\n" for line in shown[-lines:]) if lines > 0 and shown != [""] else ""

    def stage(self, pane: UserPane, text: str) -> None:
        with self._held(pane) as (own, line):
            TextDelivery(own, line, text, pane.place).stage()

    def deliver(self, pane: UserPane, text: str) -> None:
        with self._held(pane) as (own, line):
            delivery = self._delivery(own, line, text, pane.place)
            delivery.stage()
            delivery.submit()

    def _delivery(self, own: AgentPane, line: TerminalLine, text: str, place: str) -> TextDelivery:
        """How this text gets into the program that runs there now; raises if it must not."""
        return TextDelivery(own, line, text, place)

    def press(self, pane: UserPane, key: str) -> None:
        with self._held(pane) as (own, _):
            own.press(key)

    @contextmanager
    def _held(self, pane: UserPane) -> Iterator[tuple[AgentPane, TerminalLine]]:
        """Lock the pane for this sender; raise if the pane accepts no input."""
        own = AgentPane(self._server, pane.pane_id)
        with locked_line(self._line_of(pane), LOCK_SECONDS) as line:
            self._line_of(pane)  # it may have changed while we waited
            yield own, line

    def _line_of(self, pane: UserPane) -> str:
        wanted = ("pane_tty", "pane_dead", "pane_input_off", "pane_synchronized")
        fields = " ".join(f"#{{{name}}}" for name in wanted)
        answer = self._server.ask(
            "list-panes", "-t", pane.pane_id, "-f", f"#{{==:#{{pane_id}},{pane.pane_id}}}", "-F", fields
        )
        if answer is None or not answer.stdout:
            raise AgentUnavailable(f"pane {pane.place} is gone")
        line, *flags = answer.stdout[0].split(" ")
        dead, off, synchronized = (flag == "1" for flag in flags)
        if dead:
            raise NotDelivered(f"the program in {pane.place} has ended; nothing was sent. Start it again")
        if off:
            raise NotDelivered(f"the input of {pane.place} is off; nothing was sent. Run 'tmux select-pane -e' first")
        if synchronized:
            raise NotDelivered(
                f"the panes of {pane.place}'s window are synchronized, so that Enter would reach them all; nothing was "
                "sent. Run 'tmux set -w synchronize-panes off' first"
            )
        return line


def _parse(record: str) -> UserPane:
    fields = dict(zip(_FIELDS, record.split("\t"), strict=True))
    return UserPane(
        pane_id=fields["pane_id"],
        session=fields["session_name"],
        attached=fields["session_attached"] not in ("", "0"),
        window_id=fields["window_id"],
        window=int(fields["window_index"]),
        window_name=fields["window_name"],
        window_active=fields["window_active"] == "1",
        window_panes=int(fields["window_panes"]),
        layout=fields["window_layout"],
        index=int(fields["pane_index"]),
        active=fields["pane_active"] == "1",
    )


class UserServer(AgentServer):
    """The server at this socket, else the one that a plain ``tmux`` would use here.

    Each command runs in a process of its own: nothing attaches, so the user sees no client and none of their hooks run.
    """

    def __init__(self, socket: Path | None = None) -> None:
        super().__init__(socket or _default_socket())

    def ask(self, *words: str) -> TmuxAnswer | None:
        """tmux's answer; None if no server runs."""
        answer = self.process(words)
        if answer.ok:
            return answer
        refusal = " ".join(answer.stderr)
        if refusal.startswith(("no server running", "error connecting")):
            return None
        raise AgentUnavailable(f"tmux refused {words[0]} at {self.socket}: {refusal}")

    def _connected(self) -> ControlClient | None:
        return None


def _default_socket() -> Path:
    """The socket that a plain ``tmux`` uses; an agent's pane is passed over, since its server is the agent's alone."""
    inside = os.environ.get("TMUX", "").split(",")[0]
    if inside and caller().agent is None:
        return Path(inside)
    folder = Path(os.environ.get("TMUX_TMPDIR") or "/tmp")  # noqa: S108 - tmux's own place
    if not folder.is_dir():
        folder = Path("/tmp")  # noqa: S108 - and so tmux does
    return folder.resolve() / f"tmux-{os.getuid()}" / "default"
