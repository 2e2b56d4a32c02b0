"""The channels that any machine can serve: the user's command, and what apprise knows (ntfy, Slack, mail …)."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from torch_tasks.orchestration.attention import Need
from torch_tasks.orchestration.notifying import Sender
from torch_tasks.redaction import protect
from torch_tasks.settings import Settings

_COMMAND_SECONDS = 30
"""How long the command may take."""
_LAST_WORDS, _LONGEST = 500, 4000


def senders(settings: Settings) -> dict[str, Sender]:
    """What serves the declared channels, those for browsers left out, by their names."""
    found: dict[str, Sender] = {}
    for one in settings.channels:
        if one.command is not None:
            found[one.name] = CommandSender(one.command)
        elif one.target is not None:
            found[one.name] = TargetSender(one.target, settings.server_public_url)
    return found


@dataclass(frozen=True)
class CommandSender:
    """Runs a command with what it is about in its environment."""

    command: str
    at_once = 1
    whose = ""

    def is_open(self) -> bool:
        return True

    def tell(self, needs: Sequence[Need]) -> str:
        (need,) = needs
        try:
            child = subprocess.Popen(
                ("sh", "-c", self.command),
                env={**os.environ, **_facts(need)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:  # the facts are too long, or there can be no further process
            return f"the notify command did not start ({error})"
        try:
            output, _ = child.communicate(timeout=_COMMAND_SECONDS)
            how = f"ended with exit code {child.returncode}"
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            output, how = "", f"took longer than {_COMMAND_SECONDS} s"
            child.wait()
        if child.returncode == 0:
            return ""
        return f"the notify command {how}. Its output: {output[-_LAST_WORDS:].strip() or 'nothing'}"


class TargetSender:
    """Sends by apprise. Its address holds secrets, so nothing that apprise says of it is passed on."""

    at_once = 1
    whose = ""

    def __init__(self, target: SecretStr, web: str | None) -> None:
        self._target, self._web = target, web
        protect(target.get_secret_value(), what="the address of a channel")
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)

    def is_open(self) -> bool:
        return True

    def tell(self, needs: Sequence[Need]) -> str:
        (need,) = needs
        try:
            import apprise  # of the extra "push", and slow to load
        except ImportError:
            return "apprise is not installed: pip install 'torch-tasks[push]'"
        told = apprise.Apprise()
        if not told.add(self._target.get_secret_value()):
            return "apprise does not know the address of this channel; look at its form at its documentation"
        title = " ".join(filter(None, ("Torch:", need.kind, need.agent)))
        lines = (need.text[:_LONGEST], need.do[:_LONGEST], self._web or "")
        done = told.notify(title=title, body="\n".join(filter(None, lines)), body_format=apprise.NotifyFormat.TEXT)
        return "" if done else "the service at this channel's address did not take it"


def _facts(need: Need) -> Mapping[str, str]:
    """What the command finds in its environment."""
    facts = need.model_dump(mode="json", include={"kind", "text", "do", "agent", "task", "account"})
    return {f"TORCH_NOTIFY_{name.upper()}": str(value).replace("\0", "")[:_LONGEST] for name, value in facts.items()}
