"""What a box lets in, as values: whether there is one, the network, and the paths of a kind's program."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

#: The names of a shell's variables in a path: ``$HOME``, ``${CODEX_HOME:-~/.codex}``.
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<otherwise>[^}]*))?\}|\$(?P<plain>\w+)")

HIDDEN_AT_HOME = (
    # Keys and logins of other programs.
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".git-credentials", ".pypirc", ".npmrc",
    ".config/gcloud", ".config/gh", ".config/hub", ".config/op", ".config/rclone", ".config/doctl", ".config/helm",
    ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials", ".terraform.d", ".vault-token", ".m2",
    ".password-store", ".local/share/keyrings", ".local/share/kwalletd", ".pgpass", ".my.cnf", ".boto", ".s3cfg",
    # What a person's own programs keep, and have typed.
    ".mozilla", ".config/google-chrome", ".config/chromium", ".thunderbird", ".bash_history", ".zsh_history",
    ".python_history", ".psql_history", ".mysql_history", ".rediscli_history", ".config/torch",
)  # fmt: skip
"""Below the user's home, never seen in a box, wherever a folder around them is."""
HIDDEN_ELSEWHERE = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/ssl/private", "/etc/sudoers")
READABLE_AT_HOME = (".gitconfig", ".config/git", ".gitignore", ".gitignore_global", ".inputrc", ".terminfo")
"""Below the user's home, to be read in every box."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/snap", "/sys")
"""The system, to be read in every box."""


class BoxPaths(BaseModel):
    """The paths of one kind's program. ``~`` is the user's home; ``${NAME:-~/else}`` is a variable of the program's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    logins: tuple[str, ...] = ()
    """Files of the user's that all agents of the kind share with the user: who renews one renews it for all."""
    copied: tuple[str, ...] = ()
    """Files of the user's of which each agent has a copy of its own, made anew when the user's is newer."""
    readable: tuple[str, ...] = ()
    """What of the user's the program may read."""
    private: tuple[str, ...] = ()
    """Folders that each agent has for itself, in place of the user's; all of the home is one of these."""
    loopback: bool = False
    """Its worker reaches it at a port of this machine's loopback, which only a box with all of the network shares."""
    nests: bool = False
    """The program has a sandbox of its own, which the second layer would not let it build."""


def expanded(paths: Iterable[str], home: Path, variables: Mapping[str, str]) -> Iterator[Path]:
    """The paths on this machine; those that lead nowhere absolute are left out."""
    for path in paths:
        named = Path(_VARIABLE.sub(lambda found: _value(found, variables), path))
        parts = named.parts
        full = home.joinpath(*parts[1:]) if parts and parts[0] == "~" else named
        if full.is_absolute():
            yield Path(os.path.normpath(full))


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    return variables.get(found["name"] or found["plain"]) or found["otherwise"] or ""
