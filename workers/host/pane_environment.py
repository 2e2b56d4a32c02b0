"""What an agent's pane has in its environment: what is on a list, and nothing else of its worker's.

So no program of an agent finds the broker's address there, nor a password or a key that it does not need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch_tasks.caller import DESK_VARIABLE
from torch_tasks.link.desk import PATIENCE_VARIABLE
from torch_tasks.model.agent import AgentInfo
from torch_tasks.settings import Settings
from torch_tasks.state_folder import DESK, UNPACKED
from torch_tasks.workers.programs.kind import AgentKind

USUAL = (
    # The user, the terminal, the language.
    "HOME", "USER", "LOGNAME", "SHELL", "PATH", "HOSTNAME", "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR",
    "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TMP", "TEMP", "XDG_*", "EDITOR", "VISUAL", "PAGER",
    # The way to the network.
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
    # Where tools are, and whose commits are made.
    "VIRTUAL_ENV", "CONDA_PREFIX", "PYENV_ROOT", "PYTHONPATH", "LD_LIBRARY_PATH", "NVM_DIR", "NODE_PATH", "BUN_INSTALL",
    "GOPATH", "GOROOT", "CARGO_HOME", "RUSTUP_HOME", "JAVA_HOME", "GIT_AUTHOR_*", "GIT_COMMITTER_*", "EMAIL",
)  # fmt: skip
"""What every pane gets if its worker has it; a name with a star at its end stands for all that begin so."""
_NEVER = ("TORCH_*", "CELERY_*", "FLOWER_*", "TMUX*")
"""No list lets these in."""
_OF_TORCH = ("TORCH_CONFIG_DIR",)


def pane_environment(kind: AgentKind, info: AgentInfo, folder: Path, settings: Settings) -> dict[str, str]:
    """The environment of the agent's program, and of the checks of its tasks."""
    listed = (*USUAL, *settings.pane_environment, *kind.config.from_environment)
    kept = allowed(os.environ, listed)
    own = {
        # The folder of torch-tasks, by which the agent reports; last, so that it hides no command of the user's.
        "PATH": os.pathsep.join([kept.get("PATH", os.defpath), str(Path(sys.executable).parent)]),
        "TORCH_AGENT_ID": info.agent_id,
        "TORCH_INCARNATION": str(info.incarnation),
        "TORCH_STATE_DIR": str(settings.state_dir),
        DESK_VARIABLE: str(folder / DESK),
        PATIENCE_VARIABLE: f"{settings.desk_seconds:g}",
    }
    # Programs that Bun has packed unpack megabytes at every start, OpenCode's for one, and never remove them.
    unpacked = {"BUN_TMPDIR": str(folder / UNPACKED)}
    configured = {name: os.environ[name] for name in _OF_TORCH if name in os.environ}
    return {**kept, **unpacked, **kind.environment(), **configured, **own}


def allowed(environment: Mapping[str, str], listed: Iterable[str]) -> dict[str, str]:
    """The variables that a list names."""
    names = tuple(listed)
    return {
        name: value for name, value in environment.items() if is_listed(name, names) and not is_listed(name, _NEVER)
    }


def is_listed(name: str, names: Iterable[str]) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in names)
