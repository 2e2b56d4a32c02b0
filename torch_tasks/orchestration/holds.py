"""Pause and resume, stop and start: the order to the fleet, and which workers have confirmed it."""

from __future__ import annotations

from contextlib import suppress

from torch_tasks.broker.connection import broker_errors
from torch_tasks.errors import BrokerAway, BrokerUnreachable, InvalidHold, NotHeld
from torch_tasks.fleet import fleet
from torch_tasks.machine.holds import NodeHolds
from torch_tasks.model.agent import AgentInfo
from torch_tasks.model.fields import Model
from torch_tasks.model.hold import EVERYBODY, STOP, Hold, Stop, agent_scope, role_scope
from torch_tasks.model.limits import Resources
from torch_tasks.security.holds import agree
from torch_tasks.settings import settings
from torch_tasks.store.holds import new_hold

_ANSWER_SECONDS = 3.0


class HoldReport(Model):
    """An order, and which agents obey it already."""

    scope: str
    hold: Hold
    confirmed: tuple[str, ...] = ()
    """The agents and nodes that have confirmed it."""
    silent: tuple[str, ...] = ()
    """Online agents that have not confirmed; they read the order with their next heartbeat."""
    unreached: str | None = None
    """Why only this machine obeys yet, if the broker is away."""
    file: str = ""
    """The file that stops this machine, if this was about a stop."""
    still: Stop | None = None
    """What stops this machine all the same, after a stop was lifted."""


def pause(
    agent: str | None = None,
    *,
    role: str | None = None,
    everybody: bool = False,
    reason: str = "",
    interrupt: bool = False,
) -> HoldReport:
    """Order a pause, and wait a moment for those that confirm it."""
    return _announce(_scope(agent, role, everybody), new_hold(reason, interrupt=interrupt))


def resume(
    agent: str | None = None, *, role: str | None = None, everybody: bool = False, reason: str = ""
) -> HoldReport:
    """Order that a pause of this scope ends; :class:`NotHeld` if there is none."""
    return _announce(_scope(agent, role, everybody), new_hold(reason, lifted=True))


def stop(reason: str = "", *, here: bool = False) -> HoldReport:
    """Order a stop: on the disk of this machine first, so that it holds without the broker, too."""
    node, hold = NodeHolds(settings().state_dir), new_hold(reason)
    former = node.stop
    # A machine's own stop outlives the fleet's.
    if former is None or (here and former.fleet):
        node.write_stop(hold, fleet=not here)
    if here:
        return HoldReport(scope=settings().node, hold=hold, file=str(node.stop_file))
    try:
        return _announce(STOP, hold).model_copy(update={"file": str(node.stop_file)})
    except BrokerUnreachable as error:
        if former and not former.fleet:
            raise BrokerUnreachable(
                f"only this machine is stopped, as before; run the command again once the broker is back: {error}"
            ) from error
        return HoldReport(scope=STOP, hold=hold, unreached=str(error), file=str(node.stop_file))


def start(reason: str = "", *, here: bool = False) -> HoldReport:
    """Order that a stop ends; the report says what stops this machine all the same."""
    node = NodeHolds(settings().state_dir)
    lifted = _lift_here(node, reason) if here else _lift_everywhere(node, reason)
    return lifted.model_copy(update={"file": str(node.stop_file), "still": node.stop})


def _lift_here(node: NodeHolds, reason: str) -> HoldReport:
    former = node.stop
    if former is None or former.fleet:
        whose = "the fleet is, see 'torch-tasks start --all'" if former else "nothing is"
        raise NotHeld(f"node {settings().node} is not stopped by itself: {whose}")
    node.remove_stop()
    with suppress(BrokerAway):
        agree(node)
    return HoldReport(scope=settings().node, hold=new_hold(reason, lifted=True))


def _lift_everywhere(node: NodeHolds, reason: str) -> HoldReport:
    former, lifted = node.stop, new_hold(reason, lifted=True)
    if former and former.fleet and not former.revision:  # only this machine knows of it
        node.remove_stop()
        return HoldReport(scope=STOP, hold=lifted)
    return _announce(STOP, lifted)


def announce_local_stop() -> None:
    """Pass on to the fleet a stop that was ordered on this machine while the broker was away."""
    node = NodeHolds(settings().state_dir)
    if (stopped := node.stop) and stopped.fleet and not stopped.revision:
        agree(node)


def resources_of(info: AgentInfo) -> Resources | None:
    """What an agent's terminal uses, as its worker reports; None if it does not answer."""
    from torch_tasks.app import RESOURCES, app

    name = f"{info.agent_id}@{info.node}"
    with app.connection_for_write() as connection:
        answers = app.control.broadcast(
            RESOURCES, destination=[name], reply=True, timeout=_ANSWER_SECONDS, limit=1, connection=connection
        )
    reply = next((reply for answer in answers or () for reply in answer.values()), None)
    return Resources.model_validate(reply) if reply and "memory" in reply else None


def _scope(agent: str | None, role: str | None, everybody: bool) -> str:
    if (agent is not None) + (role is not None) + everybody != 1:
        raise InvalidHold("name one agent, a role, or all")
    if agent is not None:
        return agent_scope(fleet().registry.get_agent(agent.strip().lower()).agent_id)
    return EVERYBODY if role is None else role_scope(role.strip().lower())


def _announce(scope: str, hold: Hold) -> HoldReport:
    node, shared = NodeHolds(settings().state_dir), fleet()
    agree(node)  # the broker may have forgotten what this machine knows
    noted = shared.holds.put(scope, hold)
    agree(node)
    online = [info for info in shared.registry.agents() if info.online and _concerns(scope, info)]
    names = [f"{info.agent_id}@{info.node}" for info in online]
    answered = _confirmations(None if scope == STOP else names)
    confirmed = sorted(
        name.removeprefix("node@") if name.startswith("node@") else name.split("@")[0] for name in answered
    )
    silent = sorted(info.agent_id for info, name in zip(online, names, strict=True) if name not in answered)
    return HoldReport(scope=scope, hold=noted, confirmed=tuple(confirmed), silent=tuple(silent))


def _confirmations(names: list[str] | None) -> set[str]:
    """Those of these workers, or of all, that confirm the order now."""
    if names == []:
        return set()
    from torch_tasks.app import HOLDS_CHANGED, app

    # A connection of its own, for the order is given already and one that was used long ago may be broken.
    with suppress(BrokerAway), broker_errors(), app.connection_for_write() as connection:
        answers = app.control.broadcast(
            HOLDS_CHANGED,
            destination=names,
            limit=names and len(names),
            reply=True,
            timeout=_ANSWER_SECONDS,
            connection=connection,
        )
        return {name for answer in answers or () for name, reply in answer.items() if reply.get("ok")}
    return set()


def _concerns(scope: str, info: AgentInfo) -> bool:
    return scope in (STOP, EVERYBODY, agent_scope(info.agent_id), role_scope(info.role))
