"""The names of all files in a machine's state folder; ``keys.py`` has those of the broker."""

from __future__ import annotations

from pathlib import Path

from torch_tasks.errors import StateFolderUnusable

SOCKET_PATH_BYTES = 100
"""The longest path of a socket; the kernel's limit is 108, and tmux adds ``.lock``."""

JOURNAL = "journal.json"
"""In an agent's folder: its identity, its pane, and its tasks."""
TMUX = "tmux"
"""In an agent's folder: the socket of its tmux server."""
DESK = "desk/socket"
"""In an agent's folder: the socket through which what runs in the agent's pane reaches the fleet."""
PROXY = "desk/proxy"
"""In an agent's folder: the socket of the proxy through which its program reaches the hosts on its list."""
PROGRAM = "program"
"""In an agent's folder: the files of its program, which may write them."""
RUNS = "runs"
"""In an agent's folder: what is given to its program with each attempt at a task, and what came of it."""
MESSAGES = "messages"
"""In an agent's folder: the messages that came for it."""
BELL = "bell"
"""In an agent's folder: the FIFO that wakes its worker."""
HOME = "home"
"""In an agent's folder: the home of a program that runs in a box."""
TEMPORARY = "tmp"
"""In an agent's folder: the temporary files of a program that runs in a box."""
BOX = "box"
"""In an agent's folder: the walls of the box that its program runs in."""
LOGINS = "logins.json"
"""In an agent's folder: which logins of its user's it has, and from when."""
HOST_LOCK = "lock"
"""In an agent's folder: held by the worker that hosts it."""
LAST_MESSAGE = "last_message"
"""In an agent's folder: the id of the latest message."""
MESSAGE_SPAN = "message_span"
"""In an agent's folder, while its program works on a message of a trace: the message's span, as a traceparent."""
MAIL = "mail"
"""In an agent's folder: messages that did not come through the broker."""
UNPACKED = "unpacked"
"""In an agent's folder: what its program unpacks of itself at its start; emptied when no program of the agent runs."""
EVENTS = "events"
"""In an agent's folder: the reports of its program and its commands."""
CRASHES = "crashes.json"
"""In an agent's folder: how often its worker has crashed in a row."""
BROKER_LOGINS = "logins.json"
"""Beside the socket of a machine's own broker: as which users its processes connect, and their passwords."""
TALLY = "tally.json"
"""In an agent's folder: what its worker has counted for the metrics."""
RETIRE_ORDER = "retire.json"
"""In an agent's folder: the order to retire it."""


def require_short(socket: Path) -> Path:
    """The path, or :class:`StateFolderUnusable` if it is too long for a socket."""
    size = len(bytes(socket))
    if size > SOCKET_PATH_BYTES:
        raise StateFolderUnusable(
            f"the path of a socket has {size} bytes, but at most {SOCKET_PATH_BYTES} work: {socket}; "
            "set TORCH_STATE_DIR to a shorter folder"
        )
    return socket


class StateFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.broker = path / "broker"
        """The data, the configuration and the password of this machine's own broker."""
        self.broker_socket = self.broker / "sock"
        """Where this machine's own broker listens; no longer than it must be, as the system limits its path."""
        self.broker_logins = path / "broker-logins.json"
        self.broker_moved = path / "broker-moved.json"
        """As which users this machine's processes connect to a broker elsewhere, and their passwords."""
        self.broker_address = path / "broker.json"
        """Where this machine's own broker listens, from its start to `down`."""
        self.ledger = path / "ledger.sqlite"
        """The tasks that were enqueued on this machine."""
        self.done_orders = path / "done-orders.jsonl"
        """What this machine's node worker did for the fleet, so that no message has it done twice."""
        self.crossings = path / "crossings"
        """What this machine has accepted for agents of other fleets, until they have it."""
        self.keys = path / "keys"
        """The keys with which this machine signs, and the roots that it trusts."""
        self.joined = path / "joined.json"
        """What this machine was given when it joined a fleet: its name there, and the broker's address."""
        self.logs = path / "logs"
        self.run = path / "run"
        """The processes that run, for later commands."""
        self.stack_lock = path / "stack.lock"
        """Held while a command starts or ends this machine's stack."""
        self.roster = path / "roster.json"
        """The agents that the node worker keeps alive."""
        self.node_lock = path / "node.lock"
        """Held by the node worker."""
        self.holds = path / "holds.json"
        """The holds that this machine knows."""
        self.holds_lock = path / "holds.lock"
        """Held while a process changes them."""
        self.stop = path / "STOP"
        """While this file exists, no task begins on this machine."""
        self.restoring = path / "restoring.json"
        """While this file exists, a backup is being restored into this folder, or that was interrupted."""
        self.flower_password = path / "flower.password"
        self.server_token = path / "server.token"
        """The token of this folder's owner for this machine's server."""
        self.server_address = path / "server.json"
        """Which process serves, and where."""
        self.console_link = path / "console.html"
        """Leads a browser to the last link with which somebody logged in."""
        self.tokens = path / "tokens.json"
        """The tokens that this machine's server takes, hashed."""
        self.tokens_lock = path / "tokens.lock"
        """Held while a process changes them."""
        self.push_key = path / "push.pem"
        """The key by which push services know this machine's server."""
        self.push_subscriptions = path / "push.json"
        """The browsers that are told of what needs a person."""
        self.push_lock = path / "push.lock"
        """Held while a process changes them."""
        self.spent = path / "spent"
        """What the budgets were charged and the broker does not know yet."""
        self.audit = path / "audit"
        """What was done and decided on this machine."""
        self.audit_heads = path / "audit_heads.json"
        """How far the audit of each node was, as its node signed it."""
        self.audit_checked = path / "audit_checked.json"
        """Which files of the audit were found good, and what told their bytes then."""
        self.tallies = path / "tallies"
        """What the node worker and beat have counted for the metrics."""
        self.metrics_address = path / "metrics.json"
        """Where the node worker shows them."""
        self.span_place = path / "span_place.json"
        """Up to where the spans of tasks were sent."""
        self.rollups = path / "rollups.sqlite"
        """What this machine was like on each day, in numbers."""
        self.beat_address = path / "beat.json"
        """Where beat says how it is."""
        self.worktrees = path / "worktrees"
        self.certificates = path / "certificates"
        """What was found when the kinds' programs were tried."""

    def require_whole(self) -> None:
        """Raise :class:`StateFolderUnusable` if a backup was not restored into it to the end."""
        if self.restoring.exists():
            raise StateFolderUnusable(
                f"restoring a backup into {self.path} was interrupted, or goes on: nothing is started there. Repeat "
                "'torch-tasks restore' with the same backup"
            )

    def outbox(self, place: str) -> Path:
        return self.path / "outbox" / place

    @property
    def beats(self) -> Path:
        """The journals of this machine's beats."""
        return self.path / "beat"

    def beat(self, place: str) -> Path:
        return self.beats / f"{place}.sqlite"

    def git_lock(self, name: str) -> Path:
        """Held while a process changes the worktrees of one repository."""
        return self.path / "git" / f"{name}.lock"

    def agent(self, agent_id: str) -> Path:
        return self.path / "agents" / agent_id

    def retired(self, agent_id: str, incarnation: int) -> Path:
        """The last screen and the summary of an agent that has retired."""
        return self.path / "retired" / f"{agent_id}.{incarnation}.md"

    def agents(self) -> list[Path]:
        """The folders of all agents that were ever hosted here."""
        return sorted(self.path.glob("agents/*"))
