"""Runs the user's command for each thing that needs a person."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Mapping

from torch_tasks import keys
from torch_tasks.fleet import Fleet
from torch_tasks.orchestration.attention import Need, needs
from torch_tasks.system.loops import Loop

log = logging.getLogger(__name__)

_COMMAND_SECONDS = 30
"""How long the command may take."""
_AGAIN = 12
"""How many heartbeats after a failure the command is run again, by this node or another one."""
_LAST_WORDS, _LONGEST = 500, 4000


class Notifier:
    """Runs ``TORCH_NOTIFY_COMMAND`` for each need of the fleet: once if it succeeds, else again and again.

    If this node dies between the command's end and the note of it, the command runs twice.
    """

    def __init__(self, command: str, fleet: Fleet) -> None:
        self._command = command
        self._fleet = fleet
        every = fleet.settings.heartbeat_seconds
        self.loop = Loop("notifier", self._look, pause=every, delay=every)
        self._again_seconds = max(1, round(_AGAIN * every))

    def _look(self) -> None:
        client = self._fleet.client
        notified = set(map(str, client.hkeys(keys.NOTIFIED)))  # read first: what is added meanwhile stays
        found = needs(self._fleet)
        if over := notified - {need.id for need in found}:
            client.hdel(keys.NOTIFIED, *over)
        for need in found:
            if need.id not in notified:
                self._notify(need)

    def _notify(self, need: Need) -> None:
        client, claim = self._fleet.client, keys.notifying(need.id)
        held = _COMMAND_SECONDS + self._again_seconds
        if not client.set(claim, self._fleet.settings.node, nx=True, ex=held):
            return
        if not client.hexists(keys.NOTIFIED, need.id):  # another node may have done it a moment ago
            if not self._run_command(need):
                client.expire(claim, self._again_seconds)
                return
            client.hset(keys.NOTIFIED, need.id, self._fleet.settings.node)
        client.delete(claim)

    def _run_command(self, need: Need) -> bool:
        """Run the command; false if it failed."""
        try:
            child = subprocess.Popen(
                ("sh", "-c", self._command),
                env={**os.environ, **_facts(need)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:  # the facts are too long, or there can be no further process
            log.error("the notify command did not start (%s); not notified: %s", error, need.text)
            return False
        try:
            output, _ = child.communicate(timeout=_COMMAND_SECONDS)
            how = f"ended with exit code {child.returncode}"
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            output, how = "", f"took longer than {_COMMAND_SECONDS} s"
            child.wait()
        if child.returncode == 0:
            log.info("notified: %s", need.text)
            return True
        log.error(
            "the notify command %s; again in %d s. Its output: %s. Not notified: %s",
            how,
            self._again_seconds,
            output[-_LAST_WORDS:].strip() or "nothing",
            need.text,
        )
        return False


def _facts(need: Need) -> Mapping[str, str]:
    """What the command finds in its environment."""
    facts = need.model_dump(mode="json", exclude={"id"})
    return {f"TORCH_NOTIFY_{name.upper()}": value.replace("\0", "")[:_LONGEST] for name, value in facts.items()}
