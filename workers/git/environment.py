"""What git, and the hooks and filters that it runs, have in their environment."""

from __future__ import annotations

import os

from torch_tasks.settings import settings
from torch_tasks.system.environment import USUAL, allowed

_OF_GIT = (
    "GIT_CONFIG*", "GIT_EXEC_PATH", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_TEMPLATE_DIR",
    "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GNUPGHOME", "GPG_TTY",
)  # fmt: skip
"""How git is set up, and by which agent commits are signed."""


def git_environment() -> dict[str, str]:
    """Of this worker's environment what git needs, and what ``TORCH_PANE_ENVIRONMENT`` names.

    An agent may write its repository's hooks, so neither the broker's address nor a password or key is there.
    """
    return allowed(os.environ, (*USUAL, *_OF_GIT, *settings().pane_environment))
