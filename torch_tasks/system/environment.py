"""What a program that Torch starts for an agent has in its environment: what is on a list, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
"""What every such program gets if its worker has it; a name with a star at its end stands for all that begin so."""
_NEVER = ("TORCH_*", "CELERY_*", "FLOWER_*", "TMUX*")
"""No list lets these in."""


def allowed(environment: Mapping[str, str], listed: Iterable[str]) -> dict[str, str]:
    """The variables that a list names."""
    names = tuple(listed)
    return {
        name: value for name, value in environment.items() if is_listed(name, names) and not is_listed(name, _NEVER)
    }


def is_listed(name: str, names: Iterable[str]) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in names)
