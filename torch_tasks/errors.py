"""Every error Torch raises, each named for what happened.

A message says what happened, to what, and what to do about it.
"""

from __future__ import annotations


class TorchError(Exception):
    """Something Torch can name; the text is written for the person who reads it."""

    exit_code = 1


class InvalidTask(TorchError):
    """A task was refused before anything was published."""

    exit_code = 2


class InvalidSettings(TorchError):
    """A setting from the environment or torch.toml cannot be used."""

    exit_code = 2


class BrokerAway(TorchError):
    """The broker cannot be asked now; later, the same request may succeed. Never an error of the request itself."""

    exit_code = 4


class BrokerUnreachable(BrokerAway):
    """Nothing answered at the broker's address, or it answered that it cannot serve now."""

    may_have_run = False
    """The connection broke while the answer was awaited: the broker may have done what it was asked."""


class BrokerForgot(BrokerAway):
    """The broker was restarted, and what its records say does not count until the fleet has put back what it forgot."""


class BrokerNotStarted(TorchError):
    """This machine's own broker could not be started."""

    exit_code = 4


class TaskNotFound(TorchError):
    """No record of this task: a wrong id, or its time in the store is over."""


class TaskNotFinished(TorchError):
    """The waiting ended before the task did; the task itself goes on."""

    exit_code = 124


class NotInPane(TorchError):
    """A report that only the agent of the task may make."""

    exit_code = 2


class NotAnswered(TorchError):
    """The agent did not get the answer: it asks nothing, cannot take it, or cannot be reached."""


class NotDead(TorchError):
    """The task is not among the dead letters."""


class TaskFailed(TorchError):
    """An agent's run ended without success. Travels through Celery, so it is built from plain strings."""


class IllegalTransition(TorchError):
    """A task, or what else has states, was to go into one that does not follow its own."""


class StaleWriter(TorchError):
    """A worker that no longer owns a task tried to write its record."""


class AgentNotFound(TorchError):
    """No agent is registered under this id."""


class InvalidMessage(TorchError):
    """A message was refused before anything was sent."""

    exit_code = 2


class UnknownRecipient(TorchError):
    """The fleet knows no agent of this name."""

    exit_code = 2


class MessageRefused(TorchError):
    """The policy does not let this message pass."""


class InboxFull(TorchError):
    """The receiver's inbox has no room; the message was not accepted."""


class MessageNotFound(TorchError):
    """No record of this message: a wrong id, or its time in the store is over."""


class NoReply(TorchError):
    """The waiting ended before the reply came; the question stays with its receiver."""

    exit_code = 124


class NotDelivered(TorchError):
    """A message was given up, or its time was over."""


class DeliveryUncertain(TorchError):
    """A text may have been submitted in a pane, and nothing shows whether it was; twice would be worse than once."""

    exit_code = 6


class PaneNotFound(TorchError):
    """No pane of the user's tmux server is meant by this target, or more than one."""


class FileExists(TorchError):
    """A file that is not Torch's stands where one was to be written."""


class AgentUnable(TorchError):
    """The agent that a task is to be handed to cannot take it."""

    exit_code = 3


class NotYours(TorchError):
    """An agent reached for what is another one's."""


class TaskEnded(TorchError):
    """Nothing can be done with the task any more."""


class InvalidHandover(TorchError):
    """A task is to be handed over in a way that makes no sense."""

    exit_code = 2


class NobodyHelps(TorchError):
    """Every able agent declined, or let the time pass."""

    exit_code = 3


class InvalidCheckin(TorchError):
    """A check-in that cannot be kept: nothing was scheduled."""

    exit_code = 2


class CheckinNotFound(TorchError):
    """There is no check-in of this id."""


class CheckinChanged(TorchError):
    """Another caller changed the check-in meanwhile; nothing was changed."""


class NothingFires(TorchError):
    """What is to be scheduled would not come up, for no process is there that would see to it."""

    exit_code = 3


class InvalidNote(TorchError):
    """A note that cannot be kept."""

    exit_code = 2


class InvalidClaim(TorchError):
    """What is to be claimed has no usable name."""

    exit_code = 2


class ResourceTaken(TorchError):
    """Another party has claimed the resource."""


class TeamImpossible(TorchError):
    """No agents that are online have all of the skills together."""

    exit_code = 3


class InvalidHold(TorchError):
    """No agent, role or all is named that is to be paused or resumed, or more than one."""

    exit_code = 2


class NotHeld(TorchError):
    """What is to be resumed or started again is neither paused nor stopped, or by something else."""


class AgentTaken(TorchError):
    """Another live worker already hosts the agent of this id."""


class AgentUnavailable(TorchError):
    """The agent's program could not be started or does not become ready."""


class NodeTaken(TorchError):
    """Another live node worker already has this node's name."""


class NodeNotFound(TorchError):
    """No node of this name is registered."""


class SpawnRefused(TorchError):
    """A limit does not let another agent be started, or no node has room for it."""

    exit_code = 3


class SpawnFailed(TorchError):
    """An agent had its place, but did not become ready."""


class RetireImpossible(TorchError):
    """An agent cannot be retired: no node worker is there, or it is not the caller's to retire."""


class StillWorking(TorchError):
    """The waiting ended before an agent had retired; it retires when its task is over."""

    exit_code = 124


class NotInQuarantine(TorchError):
    """An agent is to be released that is not held back."""


class TmuxMissing(TorchError):
    """There is no tmux on this machine, or it is too old."""


class StateFolderUnusable(TorchError):
    """The state folder cannot be written or is laid out in a way that cannot work."""


class LedgerUnusable(TorchError):
    """The ledger on this machine's disk cannot be written or read; nothing was published."""


class LedgerOff(TorchError):
    """Something was asked for that needs the ledger, which is turned off."""

    exit_code = 2


class ProcessNotStarted(TorchError):
    """A process of this machine's stack ended before it was ready."""


class GitRefused(TorchError):
    """Git, or a hook of the tree's owner, refused what was asked of it, or took too long."""
