"""How much an agent may use of its account with the provider of its model, and how much this machine has used.

The broker counts; its counts are kept on disk, in case it forgets.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from torch_tasks.errors import BrokerAway
from torch_tasks.fleet import Fleet
from torch_tasks.model import metrics
from torch_tasks.model.budget import NOTHING, Charge, micro_usd
from torch_tasks.model.durations import describe_duration, local_time
from torch_tasks.model.fields import now
from torch_tasks.model.host import UsageLimited
from torch_tasks.model.task import FailureKind, TaskResult
from torch_tasks.model.usage import Usage
from torch_tasks.store.accounts import BudgetShare
from torch_tasks.system.files import exclusive, write_private
from torch_tasks.system.tally import tally
from torch_tasks.transport.claiming import IntakePause
from torch_tasks.visible_text import visible
from torch_tasks.workers.programs.kind import AgentKind
from torch_tasks.workers.programs.prices import prices

log = logging.getLogger(__name__)

#: The shortest pause, in seconds; a shorter one would be over before it is checked.
_SHORTEST = 1.0
_CALL = Charge(calls=1)
_MOST_MODELS, _LONGEST_MODEL = 20, 60
"""How many models without a price are told apart, and how much of their names is shown."""


class _Note(BaseModel):
    """What is kept on disk of one account."""

    model_config = ConfigDict(frozen=True)

    spent: dict[str, str] = {}
    """The broker's last counts: see ``accounts.lua``."""
    uncounted: Charge = NOTHING
    """What was used while the broker was away, and is not counted yet."""


class Spending:
    """How much all agents of this machine have used of one account; only one process at a time counts."""

    def __init__(self, account: str, fleet: Fleet) -> None:
        self._account = account
        self._fleet = fleet
        folder = fleet.settings.state.spent
        self._file = folder / f"{quote(account, safe='')}.json"
        self._lock = folder / "lock"

    def ask(self) -> BudgetShare:
        """Count one call if the budget has one left; a refused call uses nothing."""
        with exclusive(self._lock):
            return self._spend(_CALL, if_left=True)

    def count(self, used: Charge = NOTHING) -> None:
        """Count what was used, even beyond the budget; without a broker, later."""
        with exclusive(self._lock):
            try:
                self._spend(used)
            except BrokerAway:
                note = self._read()
                self._write(note.model_copy(update={"uncounted": note.uncounted.plus(used)}))

    def _spend(self, used: Charge, *, if_left: bool = False) -> BudgetShare:
        note, budgets = self._read(), self._fleet.budgets
        if if_left and note.uncounted != NOTHING:
            answer = budgets.spend(self._account, note.spent, note.uncounted)
            note = _Note(spent=answer.spent)
            self._write(note)
        answer = budgets.spend(self._account, note.spent, note.uncounted.plus(used), if_left=if_left)
        self._write(_Note(spent=answer.spent))
        return answer

    def _read(self) -> _Note:
        try:
            return _Note.model_validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValueError):  # of a damaged note, the broker's counts are left
            return _Note()

    def _write(self, note: _Note) -> None:
        write_private(self._file, note.model_dump_json() + "\n")


def used_by(usage: Usage) -> Charge:
    """What counts against budgets; a model without a price counts as the dearest."""
    return Charge(tokens=usage.input_tokens + usage.output_tokens, micro_usd=micro_usd(prices().at_most(usage)))


class AccountQuota:
    """One agent's share of its account: while there is none, its worker takes no tasks."""

    def __init__(self, kind: AgentKind, fleet: Fleet, intake: IntakePause) -> None:
        self._kind = kind
        self._intake = intake
        self._account = fleet.account(kind.account) if kind.account else None
        self._spending = Spending(kind.account, fleet) if kind.account else None
        self._unpriced: set[str] = set()
        self._limits_money = bool(kind.account and fleet.budgets.of(kind.account).usd_per_day)

    def require(self) -> None:
        """Count one call if the account may be used, else :class:`UsageLimited`, and a pause."""
        if self._account and (seconds := self._account.closed_for(self._kind.agent_id)):
            until = self._rest(seconds)
            raise UsageLimited(f"account {self._account.name} is at its limit until {local_time(until)}")
        if self._spending and (answer := self._spending.ask()).closed_seconds:
            seconds = max(answer.closed_seconds, _SHORTEST)
            until = self._rest(seconds)
            raise UsageLimited(f"{answer.why}; the next call is possible in {describe_duration(seconds)}", until)
        self._show_call()

    def _rest(self, seconds: float) -> datetime:
        self._intake.pause_for(seconds)
        return now() + timedelta(seconds=seconds)

    def admits(self) -> bool:
        """Count a message's call, and return whether the account may be used; without a broker it may."""
        try:
            self.require()
        except UsageLimited as limited:
            log.info("%s: messages wait: %s", self._kind.agent_id, limited)
            return False
        except BrokerAway:
            self.count_call()
        return True

    def count_call(self) -> None:
        """Count another call for a task or message that was begun before."""
        if self._spending:
            self._spending.count(_CALL)
        self._show_call()

    def _show_call(self) -> None:
        if self._account:
            tally().count(metrics.ACCOUNT_CALLS, account=self._account.name, role=self._kind.spec.role)

    def used_up(self, limited: UsageLimited) -> None:
        """The agent hit a limit: all agents that share the account pause until it ends."""
        if self._account is None or self._intake.seconds_left:
            return
        tally().count(metrics.ACCOUNT_LIMITS, account=self._account.name)
        seconds = (limited.until - datetime.now(UTC)).total_seconds() if limited.until else None
        self._intake.pause_for(self._account.limited(seconds))

    def note(self, result: TaskResult) -> None:
        """Count what a task used, and note on the account whether its provider served it."""
        if self._account is None:
            return
        if self._spending and result.usage:
            self._spending.count(used_by(result.usage))
            self._tell_of_missing_price(self._account.name, result.usage)
            self._show_usage(self._account.name, result.usage)
        with contextlib.suppress(BrokerAway):
            if result.succeeded:
                self._account.served()
            elif result.error and result.error.kind is FailureKind.OVERLOADED:
                self._account.overloaded()

    def _tell_of_missing_price(self, account: str, usage: Usage) -> None:
        if self._limits_money and usage.cost_usd is None:
            models = ", ".join(usage.models) or "what its program used, which names no model"
            log.warning("account %s: prices.toml has no price for %s; its budget counts the dearest", account, models)

    def _show_usage(self, account: str, usage: Usage) -> None:
        used = {"input": usage.input_tokens, "cached": usage.cached_tokens, "output": usage.output_tokens}
        role = self._kind.spec.role
        with tally().at_once():
            for direction, tokens in used.items():
                tally().count(metrics.TOKENS, tokens, account=account, role=role, direction=direction)
            if usage.cost_usd:
                tally().count(metrics.COST, usage.cost_usd, account=account, role=role)
            for model, of_model in prices().unpriced(usage).items():
                read_and_written = of_model.input_tokens + of_model.cached_tokens + of_model.output_tokens
                tally().count(metrics.UNPRICED, read_and_written, model=self._shown_model(model))

    def _shown_model(self, model: str) -> str:
        """A model's name as a label: programs may name any number of them, and write what they like."""
        name = visible(model)[:_LONGEST_MODEL] or "no name"
        if len(self._unpriced) < _MOST_MODELS:
            self._unpriced.add(name)
        return name if name in self._unpriced else "others"
