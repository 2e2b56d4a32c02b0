"""One handle on all stores, through one connection pool."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING

import redis

from torch_tasks.broker.connection import connect
from torch_tasks.broker.fence import Fence
from torch_tasks.broker.memory import Room
from torch_tasks.settings import Settings, settings

if TYPE_CHECKING:
    from torch_tasks.broker.reconciler import Reconciler
    from torch_tasks.broker.refused import RefusedLetters
    from torch_tasks.store.accounts import Account, Budgets
    from torch_tasks.store.agents import AgentRecords, SoftPins
    from torch_tasks.store.audit_heads import AuditHeads
    from torch_tasks.store.checkins import CheckinRecords
    from torch_tasks.store.crossings import Crossings
    from torch_tasks.store.denials import Denials
    from torch_tasks.store.done_orders import DoneOrders
    from torch_tasks.store.fleet_format import FormatNote
    from torch_tasks.store.holds import Holds
    from torch_tasks.store.key_exchange import KeyExchange
    from torch_tasks.store.ledger import Ledger
    from torch_tasks.store.messages import Inboxes
    from torch_tasks.store.need_times import NeedTimes
    from torch_tasks.store.nodes import NodeRegistry, Spawns
    from torch_tasks.store.notices import Notices
    from torch_tasks.store.rollups import FleetRollups
    from torch_tasks.store.standing_backups import LastBackups
    from torch_tasks.store.task_index import TaskIndex
    from torch_tasks.store.tasks import TaskRecords
    from torch_tasks.transport import Deliveries, Gate


class Fleet:
    """What the fleet shares; each store is made when it is first used."""

    def __init__(self, configuration: Settings) -> None:
        self.settings = configuration

    @cached_property
    def client(self) -> redis.Redis:
        return connect(self.settings.broker())

    @cached_property
    def fence(self) -> Fence:
        """Whether what was written may be acted on, where another server may be the primary by now."""
        return Fence(self.client, self.settings.broker())

    @cached_property
    def records(self) -> TaskRecords:
        from torch_tasks.store.tasks import TaskRecords

        return TaskRecords(self.client, self.settings)

    @cached_property
    def task_index(self) -> TaskIndex:
        """Of all tasks, what one chooses by."""
        from torch_tasks.store.task_index import TaskIndex

        return TaskIndex(self.client)

    @cached_property
    def deliveries(self) -> Deliveries:
        """The tasks' messages: waiting, held, or dead."""
        from torch_tasks.transport import Deliveries

        return Deliveries(self.client)

    @cached_property
    def refused(self) -> RefusedLetters:
        """What lay on the broker and could not be read."""
        from torch_tasks.broker.refused import RefusedLetters

        return RefusedLetters(self.client)

    @cached_property
    def inboxes(self) -> Inboxes:
        from torch_tasks.store.messages import Inboxes

        return Inboxes(self.client, self.settings)

    @cached_property
    def checkins(self) -> CheckinRecords:
        from torch_tasks.store.checkins import CheckinRecords

        return CheckinRecords(self.client, self.settings, self.inboxes, self.records)

    @cached_property
    def registry(self) -> AgentRecords:
        from torch_tasks.store.agents import AgentRecords

        return AgentRecords(self.client, self.settings)

    @cached_property
    def nodes(self) -> NodeRegistry:
        from torch_tasks.store.nodes import NodeRegistry

        return NodeRegistry(self.client, self.settings)

    @cached_property
    def spawns(self) -> Spawns:
        from torch_tasks.store.nodes import Spawns

        return Spawns(self.client, self.settings)

    @cached_property
    def soft_pins(self) -> SoftPins:
        """The tasks that wait a while for the agent that would be best for them."""
        from torch_tasks.store.agents import SoftPins

        return SoftPins(self.client, self.settings)

    @cached_property
    def holds(self) -> Holds:
        from torch_tasks.store.holds import Holds

        return Holds(self.client)

    @cached_property
    def notices(self) -> Notices:
        """What changes in the fleet."""
        from torch_tasks.store.notices import Notices

        return Notices(self.client)

    @cached_property
    def denials(self) -> Denials:
        """What callers asked for and may not do."""
        from torch_tasks.store.denials import Denials

        return Denials(self.client)

    @cached_property
    def need_times(self) -> NeedTimes:
        """Since when a person has been needed for each thing."""
        from torch_tasks.store.need_times import NeedTimes

        return NeedTimes(self.client)

    @cached_property
    def audit_heads(self) -> AuditHeads:
        """How far the audit of each node is."""
        from torch_tasks.store.audit_heads import AuditHeads

        return AuditHeads(self.client)

    @cached_property
    def crossings(self) -> Crossings:
        """What waits on this machine for other fleets."""
        from torch_tasks.store.crossings import Crossings

        return Crossings(self.settings.state.crossings)

    @cached_property
    def done_orders(self) -> DoneOrders:
        """Which of Torch's own Celery tasks were done, and what came of each."""
        from torch_tasks.store.done_orders import DoneOrders

        return DoneOrders(self.client, self.settings.state.done_orders)

    @cached_property
    def rollups(self) -> FleetRollups:
        """What each node was like on each day."""
        from torch_tasks.store.rollups import FleetRollups

        return FleetRollups(self.client)

    @cached_property
    def standing_backups(self) -> LastBackups:
        """How the last backup ended that each machine took by itself."""
        from torch_tasks.store.standing_backups import LastBackups

        return LastBackups(self.client)

    @cached_property
    def format_note(self) -> FormatNote:
        """In which format the broker holds all of it."""
        from torch_tasks.store.fleet_format import FormatNote

        return FormatNote(self.client, str(self.settings.broker().place))

    @cached_property
    def key_exchange(self) -> KeyExchange:
        """What lies on the broker of the fleet's keys."""
        from torch_tasks.store.key_exchange import KeyExchange

        return KeyExchange(self.client)

    def account(self, name: str) -> Account:
        from torch_tasks.store.accounts import Account

        return Account(name, connect(self.settings.broker(), decoded=False), self.settings)

    @cached_property
    def budgets(self) -> Budgets:
        """What the fleet may use of its accounts, and has used."""
        from torch_tasks.store.accounts import Budgets

        return Budgets(self.client, self.settings)

    @cached_property
    def room(self) -> Room:
        """The broker's memory for new tasks."""
        return Room(self.client)

    @cached_property
    def gate(self) -> Gate:
        """Closed while a restarted broker is not reconciled yet."""
        from torch_tasks.transport import Gate

        return Gate(self.client)

    @cached_property
    def reconciler(self) -> Reconciler:
        """Puts back what this process knows if the broker has forgotten it."""
        from torch_tasks.broker.reconciler import Reconciler

        return Reconciler(self.client)

    @cached_property
    def ledger(self) -> Ledger | None:
        """The tasks enqueued on this machine, as its disk knows them; None if the ledger is turned off."""
        from torch_tasks.store.ledger import ledger_of

        return ledger_of(self.settings)


@cache
def fleet() -> Fleet:
    return Fleet(settings())
