"""Every error Torch raises. A message says what happened, to what, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

_NAMED = 10
"""So many things are named in one error at most."""


class TorchError(Exception):
    """An error of Torch's own; its text is written for the person who reads it."""

    exit_code = 1


class WrongUsage(TorchError):
    """The request itself is wrong: repeated as it is, it fails again."""

    exit_code = 2


class NoneAble(TorchError):
    """No agent, node or process can do now what was asked for."""

    exit_code = 3


class TimeOver(TorchError):
    """The caller's waiting time ended first; what it waited for goes on."""

    exit_code = 124


class InvalidRequest(WrongUsage):
    """The fields of a request are wrong; nothing was done."""


class UnknownOperation(WrongUsage):
    """There is no operation of this name."""


class NotAllowed(TorchError):
    """The policy does not let this caller do what it asks for; the text names the rule."""

    exit_code = 5


class NotYours(NotAllowed):
    """The policy lets this caller do so with its own alone, and this is somebody else's."""


class NotAuthenticated(TorchError):
    """A server knows no such token, or it has expired or was revoked."""

    exit_code = 5


class LoginRefused(NotAuthenticated):
    """A person does not get in: what their provider says is not valid here, or gives them no role."""


class SignatureRefused(TorchError):
    """What came is not what somebody of this fleet signed, or no longer counts; nothing of it was used."""

    exit_code = 5


class NotSigned(SignatureRefused):
    """It carries no signature."""


class BadSignature(SignatureRefused):
    """Its signature is of another fleet, another text, another purpose, or was never one."""


class SignatureExpired(SignatureRefused):
    """It was signed too long ago, or with a certificate that was not valid then."""


class KeyRevoked(SignatureRefused):
    """It was signed with a key that was revoked since."""


class KeysUnusable(TorchError):
    """The folder of keys cannot be read, or has not the key that is needed."""


class KeyNotFound(TorchError):
    """No certificate of the fleet has this serial, and none that still counts has this name."""


class OtherFleet(SignatureRefused):
    """A broker, or a token to join, belongs to another fleet than this machine's keys."""


class OtherFormat(TorchError):
    """A broker holds what a release of Torch wrote that this one cannot share a fleet with; nothing was tried."""


class JoinRefused(SignatureRefused):
    """A token to join a fleet does not count, or the machine that shows it cannot be taken in."""


class RequestNotTaken(WrongUsage):
    """A server does not take a request of this form: its size, its headers, its method, or where it comes from."""

    def __init__(self, text: str, status: int = 400, **headers: str) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers


class KeyTaken(WrongUsage):
    """An idempotency key was used before for another request."""


class StillBeingDone(TorchError):
    """A request with the same idempotency key has begun, and nothing says yet how it ended."""


class InternalFault(TorchError):
    """A process of Torch failed at what it was asked for in a way that Torch did not foresee; its log has the cause."""


class FrameRefused(WrongUsage):
    """What was sent to an agent's desk, or came from it, is no request or answer of a version that is known here."""


class DeskBusy(NoneAble):
    """An agent's desk has as many requests as it serves at a time; nothing was done."""


class DeskAway(TorchError):
    """The agent's worker was not back in time to serve its desk."""

    exit_code = 4


class NotThroughDesk(WrongUsage):
    """Something of Celery's that cannot be done in an agent's pane, where there is no broker."""


class InvalidTask(WrongUsage):
    """A task was refused before anything was published."""


class TaskIdTaken(InvalidTask):
    """Another task was accepted under this id; it stays as it is."""


class PartlyAccepted(TorchError):
    """Of many tasks some were accepted, which go on, and others not; the text names those."""

    @classmethod
    def of(cls, count: int, refused: Mapping[str, Exception]) -> Self:
        """Of so many tasks, these were not accepted, and why."""
        named = "; ".join(f"{task_id}: {why}" for task_id, why in list(refused.items())[:_NAMED])
        more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        return cls(
            f"{count - len(refused)} of {count} tasks were accepted, and go on; these were not: {named}{more}. Enqueue "
            "all of them again under the same ids when that is mended: what was accepted is not done twice"
        )


class UnknownFleet(WrongUsage):
    """The settings name no other fleet so."""


class UnknownDependency(InvalidTask):
    """A task is to begin after one that was never accepted."""


class NotInWorker(WrongUsage):
    """A task was called like a function: only the worker of an agent does one."""


class InvalidSettings(WrongUsage):
    """A setting from the environment or torch.toml cannot be used."""


class BrokerAway(TorchError):
    """The broker cannot be asked now; the same request may succeed later."""

    exit_code = 4


class BrokerUnreachable(BrokerAway):
    """Nothing answered at the broker's address, or it answered that it cannot serve now."""

    may_have_run = False
    """Whether the connection broke while the answer was awaited: the broker may have done what was asked."""


class NothingRuns(BrokerUnreachable):
    """No broker runs in this state folder, and the settings name none elsewhere."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(
            f"nothing runs here: no broker is up in {state_dir}, and TORCH_BROKER_URL is not set. "
            "Start one with 'torch-tasks up', or set TORCH_BROKER_URL to your fleet's broker"
        )


class BrokerFull(BrokerUnreachable):
    """The broker has no memory for what is new; what it accepted stays."""


class BrokerUntrusted(BrokerUnreachable):
    """Who answers at the broker's address proves no identity that is trusted; it was sent nothing."""


class BrokerForgot(BrokerAway):
    """The broker was restarted: its records do not count until the fleet has put back what it forgot."""


class KnownToOneServer(BrokerAway):
    """What was written is known to one server alone, and another one may be the primary by now."""


class ServerUnreachable(BrokerAway):
    """Nothing answered at the server's address as a server of Torch does."""


class ServerBusy(BrokerAway):
    """The server serves as many requests as it may; the same one succeeds later."""


class ProviderAway(BrokerAway):
    """The OpenID provider at which people log in cannot be asked now; tokens count all the same."""


class FlowerAway(BrokerAway):
    """This machine runs no Flower, or it does not answer."""


class NoBrokerUsers(TorchError):
    """The broker cannot tell Torch's processes apart, or the login may make no users there."""

    exit_code = 4


class BrokerNotMoved(TorchError):
    """The fleet cannot go to that server; it goes on with the one that it has."""

    exit_code = 4


class BrokerNotStarted(TorchError):
    """This machine's own broker could not be started."""

    exit_code = 4


class Unreadable(TorchError):
    """What lies on the broker is too long, too deep, or not of the form in which Torch writes it."""


class WrongType(TorchError):
    """A key on the broker holds what Torch never keeps there: somebody else wrote it."""


class TaskNotFound(TorchError):
    """The fleet has no record of this task: the id is wrong, or the record has expired."""


class TaskNotFinished(TimeOver):
    """The waiting ended before the task did; the task itself goes on."""


class NotInPane(WrongUsage):
    """A report that only the agent of the task may make."""


class RefusedInPane(WrongUsage):
    """A command would end the agent in whose pane it was given."""


class NotAnswered(TorchError):
    """The agent did not get the answer: it has no open question, cannot take an answer, or cannot be reached."""


class NotDead(TorchError):
    """The task is not among the dead letters."""


class TaskFailed(TorchError):
    """An agent's run ended without success. Travels through Celery, so it is built from plain strings."""


class IllegalTransition(TorchError):
    """Something with states was to go into one that does not follow its own."""


class StaleWriter(TorchError):
    """A worker that no longer owns a task tried to write its record."""


class AgentNotFound(TorchError):
    """No agent is registered under this id."""


class InvalidMessage(WrongUsage):
    """A message was refused before anything was sent."""


class UnknownRecipient(WrongUsage):
    """The fleet knows no agent of this name."""


class MessageRefused(TorchError):
    """The policy of communication refused this message."""


class InboxFull(TorchError):
    """The receiver's inbox has no room; the message was not accepted."""


class SenderLimit(InboxFull):
    """One sender has sent too many messages: to this receiver, who has not read them, or within a minute."""


class MessageNotFound(TorchError):
    """The fleet has no record of this message: the id is wrong, or the record has expired."""


class NoReply(TimeOver):
    """The waiting ended before the reply came; the question stays with its receiver."""


class NotDelivered(TorchError):
    """A message was given up, or its time was over."""


class DeliveryUncertain(TorchError):
    """A text may have been submitted in a pane, and nothing shows whether it was; twice would be worse than once."""

    exit_code = 6


class PaneNotFound(TorchError):
    """No pane of the user's tmux server is meant by this target, or more than one."""


class FileExists(TorchError):
    """A file that Torch did not write stands where Torch was to write one."""


class AgentUnable(NoneAble):
    """The agent that a task is to be handed to cannot take it."""


class TaskEnded(TorchError):
    """The task has ended and cannot be changed any more."""


class InvalidHandover(WrongUsage):
    """A task cannot be handed over as it was asked for."""


class NobodyHelps(NoneAble):
    """Every able agent declined, or did not answer in time."""


class InvalidCheckin(WrongUsage):
    """A check-in that cannot be kept: nothing was scheduled."""


class CheckinNotFound(TorchError):
    """There is no check-in of this id."""


class CheckinChanged(TorchError):
    """Another caller changed the check-in meanwhile; nothing was changed."""


class NothingFires(NoneAble):
    """No process runs that would fire what is to be scheduled."""


class InvalidNote(WrongUsage):
    """A note that cannot be kept."""


class InvalidClaim(WrongUsage):
    """The name of the resource to claim cannot be used."""


class ResourceTaken(TorchError):
    """Another agent or person has claimed the resource."""


class TeamImpossible(NoneAble):
    """The agents that are online do not have all of the skills together."""


class InvalidHold(WrongUsage):
    """The caller must name exactly one of an agent, a role, or all to pause or resume."""


class NotHeld(TorchError):
    """What is to be resumed or started again is not held, or another hold keeps it."""


class AgentTaken(TorchError):
    """Another live worker already hosts the agent of this id."""


class AgentUnavailable(TorchError):
    """The agent's program could not be started or does not become ready."""


class PaneTaken(TorchError):
    """Another person has taken this agent's terminal over."""


class NotTakenOver(TorchError):
    """Who types into an agent's terminal has not taken it over, or no longer has it; nothing was typed."""


class NodeTaken(TorchError):
    """Another live node worker already has this node's name."""


class NodeNotFound(TorchError):
    """No node of this name is registered."""


class SpawnRefused(NoneAble):
    """A limit forbids another agent, or no node has room for it."""


class SpawnFailed(TorchError):
    """An agent was given a place on a node, but did not become ready."""


class RetireImpossible(TorchError):
    """An agent cannot be retired: its node worker is away, or the caller may not retire it."""


class NotGone(TorchError):
    """Only an agent that is silent, and that no node worker keeps, can be forgotten."""


class StillWorking(TimeOver):
    """The waiting ended before an agent had retired; it retires when its task is over."""


class NotInQuarantine(TorchError):
    """An agent is to be released, but its node worker does not hold it back."""


class SandboxRefused(TorchError):
    """An agent's program must run in a box, and cannot: there is no bubblewrap, or its folder allows none."""


class TmuxMissing(TorchError):
    """There is no tmux on this machine, or it is too old."""


class StateFolderUnusable(TorchError):
    """The state folder cannot be written or is laid out in a way that cannot work."""


class AuditNotWritten(TorchError):
    """The audit on this machine's disk cannot be written; what has to be written there first was not done."""


class AuditBroken(TorchError):
    """The audit on this machine's disk is not what its node wrote and signed."""


class LedgerUnusable(TorchError):
    """The ledger on this machine's disk cannot be written or read; nothing was published."""


class LedgerOff(WrongUsage):
    """The request needs the ledger, which is turned off."""


class ProcessNotStarted(TorchError):
    """A process on this machine did not start, or ended before it was ready."""


class NotEnded(TorchError):
    """Something of this machine's stack could not be ended; everything else was."""


class GitRefused(TorchError):
    """Git, or a hook of the tree's owner, refused a command or took too long."""


class FakeModelFailed(TorchError):
    """The fake model did not start, or refused a request of Torch's."""


class InvalidToken(WrongUsage):
    """A token for the server cannot be made or read as it was asked for."""


class TokenNotFound(TorchError):
    """No token for the server has this name."""


class CannotCertify(NoneAble):
    """A kind's program cannot be tried here: it is not installed, or nothing says how it reaches a fake model."""


class PromiseBroken(TorchError):
    """A program that is tried did not do what Torch promises of it."""


class CollectorAway(TorchError):
    """A collector of OpenTelemetry's did not take spans."""


class BackupNotWritten(TorchError):
    """A backup could not be written; one that was there before is as it was."""


class BackupIncomplete(TorchError):
    """A backup was written, and something of a machine of the fleet is not in it."""


class BackupDamaged(TorchError):
    """A backup is not what was written, or no backup at all."""


class BackupTooNew(TorchError):
    """A backup was made by a later version of Torch, which lays it out in another way."""


class SealNotOpened(TorchError):
    """What was given does not open the keys in a backup."""

    exit_code = 5


class FleetNotEmpty(TorchError):
    """A backup is not restored onto a fleet that has tasks, or a machine that has keys or agents."""
