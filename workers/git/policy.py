"""What ``git.toml`` has Torch do in the git trees of each role's agents."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from torch_tasks.config_files import config_file
from torch_tasks.model.fields import Role
from torch_tasks.toml_config import read_config

TASK_BRANCH = "feature/{task}"


def _names_the_agent(pattern: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9_-]+/)+\{agent\}", pattern):
        raise ValueError("must be one folder or more and {agent}, as in torch/{agent}")
    return pattern


def _expression(text: str) -> str:
    try:
        re.compile(text.encode())
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


class _GitPolicyPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RolePolicy(_GitPolicyPart):
    """What Torch does for the agents of one role; nothing unless the file enables it."""

    enabled: bool = False
    commit_minutes: float = Field(30.0, ge=0, allow_inf_nan=False)
    """Torch commits work that has been uncommitted for longer; 0: never."""
    branch: Annotated[str, AfterValidator(_names_the_agent)] = "torch/{agent}"
    """Where Torch commits if the default branch is checked out."""
    protected: tuple[str, ...] = ()
    """Globs of branches that get no commits, as the default branch gets none."""
    task_branch: bool = False
    """Each task gets a branch."""
    worktree: bool = False
    """Each task gets a tree of its own, with that branch."""
    tag: bool = False
    """Torch tags the commit of a task that ended verified."""
    file_limit_bytes: int = Field(5_000_000, gt=0)
    """Torch leaves out larger files."""
    new_files_limit: int = Field(1000, gt=0)
    """If there are more new files, something is missing in ``.gitignore``, and Torch commits nothing."""
    secret_files: tuple[str, ...] = ()
    """Globs of file names that Torch leaves out, beside those that it knows."""
    secret_texts: tuple[Annotated[str, AfterValidator(_expression)], ...] = ()
    """Regular expressions of what a file must not hold, beside those that Torch knows."""
    hook_seconds: float = Field(120.0, gt=0, allow_inf_nan=False)
    """How long a commit may take with the tree's hooks."""


class GitPolicy(_GitPolicyPart):
    """The whole file. A role takes from ``all`` what it does not set itself."""

    all: RolePolicy = RolePolicy()
    roles: dict[Role, RolePolicy] = {}

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        common, roles = given.get("all", {}), given.get("roles", {})
        if not isinstance(common, dict) or not isinstance(roles, dict):
            return given
        return given | {"roles": {role: common | own if isinstance(own, dict) else own for role, own in roles.items()}}

    def of(self, role: str) -> RolePolicy:
        return self.roles.get(role, self.all)


@cache
def git_policy() -> GitPolicy:
    return read_config(config_file("git.toml"), GitPolicy)
