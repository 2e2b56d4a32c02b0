"""The operations on the policy: which rules there are, which one decides, and what was refused."""

from __future__ import annotations

from typing import Any

from pydantic import Field, JsonValue

from torch_tasks.caller import Caller, CallerKind
from torch_tasks.fleet import fleet
from torch_tasks.model.denial import Denial
from torch_tasks.model.fields import AgentId, Model, Role
from torch_tasks.operations.operation import Operation, Request, operation, operation_named, request_of
from torch_tasks.security.decision import Verdict, decide, role_that_counts
from torch_tasks.security.rights import Extent, Right
from torch_tasks.security.rules import PolicyRule, rules


class ShowPolicy(Request):
    """All of it, or what concerns one sort of caller."""

    caller: str | None = Field(None, description="Only this table: person, program, agent, project-manager, …")


class RuleShown(Model):
    """One cell of the policy."""

    caller: str
    right: Right
    extent: Extent
    rule: str
    """The rule as it stands, and where."""


@operation("policy.show", Right.LOOK, needs_broker=False)
def show(asked: ShowPolicy) -> list[RuleShown]:
    """Who has which right, and which line of which file says so."""
    return [rule for rule in rights_table() if asked.caller in (None, rule.caller)]


def rights_table() -> list[RuleShown]:
    """Every right of every sort of caller."""
    callers = {str(kind): Caller(other=kind) for kind in (CallerKind.PERSON, CallerKind.NODE)}
    callers |= {role: Caller(other=CallerKind.PROGRAM, role=role) for role in ("operator", "program", "viewer")}
    callers |= {"agent": Caller(agent="agent")}
    callers |= {role: Caller(agent="agent", role=role) for role in sorted(rules().roles)}
    return [_shown(name, right, rules().rule_for(who, right)) for name, who in callers.items() for right in Right]


def _shown(name: str, right: Right, rule: PolicyRule) -> RuleShown:
    return RuleShown(caller=name, right=right, extent=rule.extent, rule=str(rule))


class Explain(Request):
    """A caller, what it would ask for, and of what."""

    caller: str = Field(description="person, node, operator, program, viewer, or the id of an agent.")
    role: Role | None = Field(None, description="The agent's role (default: as the registry has it).")
    operation: str = Field(description="What it would ask for, as task.cancel.")
    fields: dict[str, JsonValue] = Field({}, description="The fields of that request (default: any).")


class Explanation(Model):
    caller: str
    operation: str
    allowed: bool | None
    """None if it depends on whether what the request is about is the caller's own."""
    why: tuple[str, ...]


@operation("policy.explain", Right.LOOK)
def explain(asked: Explain) -> Explanation:
    """Whether a caller may do something, and which rule decides."""
    who, declared = _caller(asked), operation_named(asked.operation)
    decisions = _decisions(who, declared, asked.fields)
    known: list[bool | None] = [None if one is None else one.allowed for one, _ in decisions]
    verdict = False if False in known else None if None in known else True
    words = f"{who.name} ({who.kind}{f', {who.role}' if who.role else ''})"
    return Explanation(
        caller=words, operation=declared.name, allowed=verdict, why=tuple(words for _, words in decisions)
    )


def _caller(asked: Explain) -> Caller:
    match asked.caller:
        case CallerKind.PERSON | CallerKind.NODE:
            return Caller(other=CallerKind(asked.caller))
        case "operator" | "program" | "viewer":
            return Caller(other=CallerKind.PROGRAM, role=asked.caller, own_name=asked.caller)
    named = asked.caller.removeprefix(f"{CallerKind.AGENT}:")  # as refusals are counted
    who = Caller(agent=_AgentNamed.build(agent=named).agent, role=asked.role)
    return role_that_counts(who)


class _AgentNamed(Request):
    agent: AgentId


def _decisions(
    who: Caller, declared: Operation[Any, Any], fields: dict[str, JsonValue]
) -> list[tuple[Verdict | None, str]]:
    """Each decision that the request takes, with its words; None where the fields would be needed for it."""
    if fields:
        request = request_of(declared, fields)
        rights = filter(None, (declared.right, declared.also(request)))
        found = [decide(who, right, declared.about(request)) for right in rights]
        return [(one, str(one)) for one in found]
    rule = rules().rule_for(who, declared.right)
    if rule.extent is Extent.OWN:
        return [(None, f"it takes the right '{declared.right}': {rule}")]
    decision = Verdict(declared.right, rule)
    return [(decision, str(decision))]


class ListRefusals(Request):
    limit: int = Field(50, ge=1, le=1000, description="How many, the latest.")


class Refusals(Model):
    """What callers asked for and may not do."""

    latest: list[Denial]
    """The latest first."""
    counts: dict[str, int]
    """How often, by caller and operation, as ``agent:dev-1 task.answer``."""


@operation("policy.refusals", Right.LOOK)
def refusals(asked: ListRefusals) -> Refusals:
    """What callers asked for that they may not do: who, what, by which rule, when, and how often."""
    return Refusals(latest=fleet().denials.latest(asked.limit), counts=fleet().denials.counts())
