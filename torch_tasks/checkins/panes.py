"""The panes of users' own tmux servers, as check-ins name them and their machine's node worker finds them again."""

from __future__ import annotations

from torch_tasks.checkins.checkin import UserPane
from torch_tasks.compat.panes import find, user_tmux
from torch_tasks.errors import PaneNotFound
from torch_tasks.settings import settings


def pane_named(target: str) -> UserPane:
    """The pane of this machine that the target names to whoever calls, or :class:`PaneNotFound`."""
    tmux = user_tmux()
    find(tmux, target)
    server = tmux.server_pid() if _is_id(target) else None
    return UserPane(node=settings().node, socket=tmux.place, target=target, server=server)


def type_into(pane: UserPane, text: str) -> str:
    """Put the text into the pane's program, verified; returns where that was. An error if it did not arrive there."""
    tmux = user_tmux(pane.socket)
    if pane.server and pane.server != tmux.server_pid():
        raise PaneNotFound(
            f"the tmux server at {pane.socket} was started anew: nobody knows any more what {pane.target} was"
        )
    found = find(tmux, pane.target)
    tmux.deliver(found, text)
    return found.place


def _is_id(target: str) -> bool:
    """Only its server knows it."""
    return "%" in target or "@" in target
