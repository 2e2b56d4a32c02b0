"""What this machine uses of its accounts, counted on the broker and kept on the disk, should the broker forget it."""

from __future__ import annotations

from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict

from torch_tasks.errors import BrokerAway
from torch_tasks.fleet import Fleet
from torch_tasks.store.accounts import BudgetShare
from torch_tasks.system.files import exclusive, write_private


class _Note(BaseModel):
    """What is kept of one account."""

    model_config = ConfigDict(frozen=True)

    spent: dict[str, str] = {}
    """As the broker counted it last: see ``accounts.lua``."""
    calls: int = 0
    tokens: int = 0
    """What was used while there was no broker to count it."""


class Spending:
    """One account's use by all agents of this machine, which take turns."""

    def __init__(self, account: str, fleet: Fleet) -> None:
        self._account = account
        self._fleet = fleet
        folder = fleet.settings.state.spent
        self._file = folder / f"{quote(account, safe='')}.json"
        self._lock = folder / "lock"

    def ask(self) -> BudgetShare:
        """Count one call if the budget has one left; who is refused has used nothing."""
        with exclusive(self._lock):
            return self._spend(calls=1, if_left=True)

    def count(self, *, calls: int = 0, tokens: int = 0) -> None:
        """Count what was used, whatever the budget says; without a broker, later."""
        with exclusive(self._lock):
            try:
                self._spend(calls=calls, tokens=tokens)
            except BrokerAway:
                note = self._read()
                left = {"calls": note.calls + calls, "tokens": note.tokens + tokens}
                self._write(note.model_copy(update=left))

    def _spend(self, *, calls: int = 0, tokens: int = 0, if_left: bool = False) -> BudgetShare:
        note, budgets = self._read(), self._fleet.budgets
        if if_left and (note.calls or note.tokens):
            answer = budgets.spend(self._account, note.spent, calls=note.calls, tokens=note.tokens)
            note = _Note(spent=answer.spent)
            self._write(note)
        answer = budgets.spend(
            self._account, note.spent, calls=note.calls + calls, tokens=note.tokens + tokens, if_left=if_left
        )
        self._write(_Note(spent=answer.spent))
        return answer

    def _read(self) -> _Note:
        try:
            return _Note.model_validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValueError):  # a damaged note is worth no more than what the broker knows
            return _Note()

    def _write(self, note: _Note) -> None:
        write_private(self._file, note.model_dump_json() + "\n")


class MachineSpending:
    """All that is kept on this machine's disk, as a source for the reconciler."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._folder = fleet.settings.state.spent

    @property
    def name(self) -> str:
        """What the broker notes it under."""
        return f"spending {self._fleet.settings.node} {self._folder}"

    def put_back(self) -> bool:
        """Have the broker count no less than it once did."""
        for file in sorted(self._folder.glob("*.json")):
            Spending(unquote(file.stem), self._fleet).count()
        return True
