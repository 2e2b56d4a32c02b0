"""Whether a caller may do what it asks for."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn

from torch_tasks.caller import Caller, CallerKind, caller
from torch_tasks.errors import BrokerAway, NotAllowed, NotYours
from torch_tasks.fleet import fleet
from torch_tasks.model.asker import Asker
from torch_tasks.model.denial import Denial
from torch_tasks.security.audit import note_refusal
from torch_tasks.security.ownership import role_of, whose_else
from torch_tasks.security.rights import Extent, Right, Subject
from torch_tasks.security.rules import PolicyRule, rules, where_to_change

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """Whether a caller may, and the rule that says so."""

    right: Right
    rule: PolicyRule
    not_own: str = ""
    """Why what the request is about is not the caller's own, where that decides."""

    @property
    def allowed(self) -> bool:
        return self.rule.extent is Extent.ANY or (self.rule.extent is Extent.OWN and not self.not_own)

    def __str__(self) -> str:
        return f"it takes the right '{self.right}': {self.rule}" + (f", and {self.not_own}" if self.not_own else "")


def decide(who: Caller, right: Right, subject: Subject) -> Verdict:
    """Whether this caller has the right for this subject."""
    rule = rules().rule_for(role_that_counts(who, right), right)
    return Verdict(right, rule, whose_else(who, right, subject) if rule.extent is Extent.OWN else "")


def require(operation: str, right: Right, subject: Subject, also: Right | None = None) -> str:
    """The rules that let :func:`torch_tasks.caller.caller`, or :class:`NotAllowed`, which names the one that does not.

    :class:`NotYours` says that it has the right for what is its own. Each refusal is counted and noted.
    """
    who, letting = caller(), []
    for each in filter(None, (right, also)):
        decision = decide(who, each, subject)
        if not decision.allowed:
            refuse(operation, str(decision), is_of_others=decision.rule.extent is Extent.OWN)
        letting.append(str(decision.rule))
    return "; ".join(letting)


def require_no_more_than_own(role: str) -> None:
    """Raise :class:`NotAllowed` if the caller is an agent, and one of this role might do more than it may itself."""
    who = role_that_counts(caller())
    if who.kind is not CallerKind.AGENT:
        return
    extents = list(Extent)
    for right in Right:
        new = rules().rule_for(replace(who, role=role), right)
        if extents.index(new.extent) > extents.index(rules().rule_for(who, right).extent):
            refuse("agent.spawn", f"an agent of the role {role} may do more than {who.name} itself: {new}")


def refuse(operation: str, why: str, *, is_of_others: bool = False) -> NoReturn:
    """Note that the caller may not do this, and raise the error that says so."""
    asker = Asker.now()
    note_denial(operation, asker, why)
    raise (NotYours if is_of_others else NotAllowed)(
        f"{asker.name} may not do {operation}: {why}; who runs the fleet may say otherwise in {where_to_change()}"
    )


def note_denial(operation: str, asker: Asker, why: str) -> None:
    """Note in the audit, and count for the fleet, that somebody was refused something."""
    log.warning("%s may not do %s: %s", asker.name, operation, why)
    note_refusal(operation, asker, why)
    with suppress(BrokerAway):
        fleet().denials.note(Denial(operation=operation, by=asker, why=why))


def role_that_counts(who: Caller, right: Right | None = None) -> Caller:
    """The caller with its role, if it is an agent; with a ``right``, only if that makes a difference."""
    is_known = who.kind is not CallerKind.AGENT or who.role or who.agent is None
    if is_known or (right and not rules().depends_on_role(right)):
        return who
    return replace(who, role=role_of(str(who.agent)))
