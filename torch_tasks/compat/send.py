"""``send-claude-message.sh``: sends a message to an agent, or into any pane of the user's tmux server, and verifies it.

Only a message to an agent needs the broker, so only the functions for that import it: a pane gets its message sooner.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from torch_tasks.errors import AgentNotFound, InvalidMessage, NotDelivered, PaneNotFound, TorchError
from torch_tasks.machine.user_panes import find, user_tmux
from torch_tasks.system.terminal import visible_output
from torch_tasks.visible_text import visible

AGENT_SECONDS = 10.0
"""How long to wait for an agent to take its message; after that it waits in the agent's inbox."""


@visible_output()
def main() -> int:
    """The program; ``sys.argv`` holds its name, the target, and the words."""
    called_as, *words = sys.argv
    if len(words) < 2:
        say(f"Usage: {called_as} <session:window> <message>\nExample: {called_as} agentic-seek:3 'Hello Claude!'")
        return 1
    try:
        message = text(words[1:])
        send(words[0], message)
    except TorchError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - this is what the program says
        return error.exit_code
    say(f"Message sent to {words[0]}: {message}")
    return 0


def send(target: str, text: str) -> None:
    """Send the text to the agent with this id, or into the pane that the target names; raises if it did not arrive."""
    if not text.strip():
        raise InvalidMessage("the message is empty, and nothing was sent")
    if is_agent(target):
        _to_agent(target, text)
        return
    tmux = user_tmux()
    try:
        pane = find(tmux, target)
    except PaneNotFound as error:
        if _may_be_agent(target):
            agents = "there is no such agent either" if _fleet_answers() else "no broker answers to look for an agent"
            raise PaneNotFound(f"{error}; {agents}") from None
        raise
    tmux.deliver(pane, text)


def is_agent(target: str) -> bool:
    """Whether an agent with this id is registered, or while no broker answers, hosted by this machine."""
    if not _may_be_agent(target):
        return False
    from torch_tasks.machine.agent_folder import is_hosted
    from torch_tasks.settings import settings

    if not _fleet_answers():
        return is_hosted(settings().state.agent(target))
    from torch_tasks.link import perform
    from torch_tasks.operations import agents

    try:
        perform(agents.get, agents.OfAgent.build(agent_id=target))
    except AgentNotFound:
        return False
    return True


def _fleet_answers() -> bool:
    """Whether there is a desk or a server, or a broker answers, asked once: a user of tmux alone has none."""
    from torch_tasks.broker.connection import answers
    from torch_tasks.link import link
    from torch_tasks.link.direct import DirectLink
    from torch_tasks.settings import settings

    return not isinstance(link(), DirectLink) or answers(settings().broker())


def _may_be_agent(target: str) -> bool:
    return ":" not in target and not target.startswith(("%", "@", "="))


def _to_agent(agent_id: str, text: str) -> None:
    from torch_tasks.communication import NovaOrchestrator

    nova = NovaOrchestrator()
    sent = nova.send_message(agent_id, text)
    waits = f"{agent_id} has not taken it yet: it is kept, and 'torch-tasks messages {sent.id}' shows its state"
    if sent.transport == "broker" and not sent.note:
        try:
            nova.await_delivery(sent.id, AGENT_SECONDS)
        except NotDelivered as error:
            if nova.message(sent.id).state.settled:
                raise
            sent = sent.model_copy(update={"note": f"{waits} ({error})"})
    if sent.note:
        print(f"Note: {sent.note}", file=sys.stderr)  # noqa: T201 - this is what the program says


def text(words: Sequence[str]) -> str:
    """The words joined by a space, as UTF-8 whatever the locale."""
    try:
        return b" ".join(map(os.fsencode, words)).decode()
    except UnicodeDecodeError as error:
        raise InvalidMessage(f"the message is not UTF-8 (byte {error.start}), and nothing was sent") from None


def say(text: str) -> None:
    """Print the text in UTF-8, whatever the locale."""
    sys.stdout.buffer.write(f"{visible(text)}\n".encode())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
