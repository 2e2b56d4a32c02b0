"""Checks every file of the configuration, before a process stumbles over one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from torch_tasks.communication.policy import policy
from torch_tasks.config_files import known_kinds, user_config
from torch_tasks.errors import InvalidSettings
from torch_tasks.model.fields import is_role
from torch_tasks.model.near import did_you_mean
from torch_tasks.settings import settings, unknown_variables
from torch_tasks.workers.git.policy import git_policy
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.prices import prices

_FILES = ("torch.toml", "git.toml", "policy.toml", "prices.toml")


def configuration_faults() -> list[str]:
    """Everything that is wrong in the files of the configuration, and in the environment."""
    checks: list[Callable[[], object]] = [settings, git_policy, policy, prices]
    checks += [partial(kind_config, kind) for kind in known_kinds()]
    return [*filter(None, map(_fault, checks)), *_wrong_names(), *_wrong_roles(), *_misspelt_variables()]


def _fault(check: Callable[[], object]) -> str:
    try:
        check()
    except InvalidSettings as error:
        return str(error)
    return ""


def _wrong_names() -> Iterator[str]:
    """Files that Torch does not read, with a name near that of one which it reads."""
    for file in sorted(user_config().glob("*.toml")):
        if file.name not in _FILES and (meant := did_you_mean(file.name, _FILES)):
            yield f"{file} is not read; {meant}"


def _wrong_roles() -> Iterator[str]:
    for file in sorted((user_config() / "roles").glob("*.md")):
        if not is_role(file.stem):
            yield f"{file}: {file.stem!r} can be the name of no role, so no agent gets this briefing; rename it"
        try:
            file.read_text()
        except (OSError, ValueError) as error:
            yield f"cannot read {file}: {error}"


def _misspelt_variables() -> Iterator[str]:
    for name, meant in unknown_variables().items():
        if meant:
            yield f"{name} in the environment is no setting of Torch; did you mean {' or '.join(meant)}?"
