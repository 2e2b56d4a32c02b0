"""Whether agents' programs run in a box, and what they reach from there: as a user says it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

SandboxMode = Literal["auto", "always", "never"]
"""Whether an agent's program runs in a box: where it can, in one or not at all, without one."""


_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?")


def _network(value: object) -> object:
    """``all``, ``none``, or hosts: a list of them, or a text with commas."""
    hosts = value.split(",") if isinstance(value, str) else value
    if not isinstance(hosts, (list, tuple)):
        raise ValueError('must be "all", "none", or a list of hosts')
    names = [str(host).strip() for host in hosts]
    for host in names:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no host; write api.example, *.example for all below it, or host:8080")
    if not names or (len(names) > 1 and {"all", "none"} & set(names)):
        raise ValueError('must be "all", "none", or a list of hosts')
    return ",".join(names)


Network = Annotated[str, BeforeValidator(_network)]
"""What a boxed program reaches: ``all``, ``none``, or these hosts, with commas between them, by HTTP and HTTPS."""


class BoxSettings(BaseModel):
    """What a machine's settings say of boxes."""

    sandbox: SandboxMode = Field(
        "auto",
        description="Whether agents' programs, the checks of their tasks, and git in their trees run in a box "
        "(bubblewrap), unless a kind's file or an agent's declaration says: `auto` where this machine can, `always` in "
        "one or not at all, `never`. See docs/security.md.",
    )
    sandbox_network: Network = Field(
        "all",
        description="What they reach from there, unless a kind's file or a declaration says: `all`, `none`, or a list "
        'of hosts, as `["api.example", "*.pypi.org", "host:8080"]`.',
    )
    sandbox_readable: tuple[str, ...] = Field(
        (), description='What of this machine they may read beside the system, as `["~/data", "/srv/models"]`.'
    )
    sandbox_writable: tuple[str, ...] = Field((), description="What they may write beside their folders.")
    sandbox_hidden: tuple[str, ...] = Field((), description="What they never see, whatever is around it.")
