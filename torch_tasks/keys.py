"""The names of all keys, queues and channels on the broker."""

from __future__ import annotations

from collections.abc import Iterable

PREFIX = "nova:torch:"

#: Sorted set of task ids by the microsecond they were accepted in; each record is a hash below :func:`task_record`.
TASK_STATUS = f"{PREFIX}task_status"
#: Hash of agent id → its entry as JSON.
AGENT_REGISTRY = f"{PREFIX}agent_registry"
#: Sorted set of agent ids by their last heartbeat, in the broker's milliseconds.
AGENT_HEARTBEAT = f"{PREFIX}agent_heartbeat"
#: Hash of agent id → the largest incarnation ever given out.
AGENT_INCARNATION = f"{PREFIX}agent_incarnation"
#: Hash of agent id → what a search needs of its entry: see ``agents.lua``.
AGENT_TRAITS = f"{PREFIX}agent_traits"
#: Sorted set, all of one score, of the agents' roles and skills: see ``agents.lua``.
AGENT_INDEX = f"{PREFIX}agent_index"
#: Hash of agent id → how its tasks ended so far, as JSON.
AGENT_PERFORMANCE = f"{PREFIX}agent_performance"
#: Hash of agent id → how many tasks it held and had waiting in its own queue when it last had a heartbeat.
AGENT_LOAD = f"{PREFIX}agent_load"
#: Stream of the ids of agents of which something other than the heartbeat changed.
AGENT_CHANGES = f"{PREFIX}agent_changes"
#: Sorted set of "agent task" by the broker's millisecond until which the task waits for this agent.
SOFT_PINS = f"{PREFIX}soft_pins"
#: Hash of a pool → when it last grew, and the lock of the process that decides on that.
POOLS_GROWN = f"{PREFIX}pools_grown"
SCALING = f"{PREFIX}scaling"
#: Sorted set of agent ids by the millisecond in which a node worker last promised to start their worker again.
AGENT_KEPT = f"{PREFIX}agent_kept"
#: Hash of a node's name → its entry as JSON.
NODE_REGISTRY = f"{PREFIX}node_registry"
#: Sorted set of the names of nodes by their last heartbeat, in the broker's milliseconds.
NODE_HEARTBEAT = f"{PREFIX}node_heartbeat"
#: Hash of a node's name → the largest incarnation ever given out.
NODE_INCARNATION = f"{PREFIX}node_incarnation"
#: Set of the names of nodes on which no agent is started any more.
NODES_DRAINED = f"{PREFIX}nodes_drained"
#: Hash of the id of a spawned agent → what was asked for and which node has it, as JSON.
SPAWNED = f"{PREFIX}spawned"
#: Hash of the id of a spawned agent → how far it has come, as JSON.
SPAWN_STATES = f"{PREFIX}spawn_states"
#: Grows with each change of the two above.
SPAWN_REVISION = f"{PREFIX}spawn_revision"
#: Hash of the id of a retired agent → how it ended, as JSON.
RETIREMENT_REPORTS = f"{PREFIX}retirement_reports"
#: Sorted set of delivery tags by the broker's millisecond until which a worker holds them.
LEASES = f"{PREFIX}leases"
#: Hash of delivery tag → the message it delivered, until it is acknowledged.
DELIVERIES = f"{PREFIX}deliveries"
#: Hash of message id → a message that was given up; only a person can replay it.
DEAD_LETTERS = f"{PREFIX}dead_letters"
#: Hash of the id of a dead letter that could not be read → where it lay and why it was refused.
REFUSALS = f"{PREFIX}refusals"
#: How many of these were dropped because there were too many.
REFUSALS_DROPPED = f"{PREFIX}refusals_dropped"
#: Stream of what callers asked for and may not do; hash of caller and operation → how often.
DENIALS = f"{PREFIX}denials"
DENIALS_COUNTED = f"{PREFIX}denials_counted"
#: Hash of node → how far its audit is, signed.
AUDIT_HEADS = f"{PREFIX}audit_heads"
#: Set of the nodes that ever put a daily rollup here; see :func:`rollups`.
ROLLED_UP = f"{PREFIX}rolled_up"
#: Hash of task id → its message, which no agent gets: the task waits for others, or has ended unknown to Celery
#: as yet.
SET_ASIDE = f"{PREFIX}set_aside"
#: Sorted set of the ids of tasks that have a deadline and have not ended, by the millisecond of the deadline.
DEADLINES = f"{PREFIX}deadlines"
#: Hash of a state → how many tasks ended in it while no agent had them, and are in no process's counts yet.
ENDED_UNOWNED = f"{PREFIX}ended_unowned"
#: Hash about the broker itself: which server process was last reconciled with the fleet, and since when.
BROKER_STATE = f"{PREFIX}broker"
#: Grows with each question how many replicas have all that was written before it.
FENCE = f"{PREFIX}fence"
#: What a server says to each process that connects while the fleet is moved to another one, and afterwards.
BROKER_MOVED = f"{PREFIX}moved"
#: On the server to which a fleet has moved, or is being moved: what the former one says of that.
BROKER_ARRIVED = f"{PREFIX}arrived"
#: Hash of a chore of the fleet's housekeeping → the broker's second in which it was last begun.
HOUSEKEEPING = f"{PREFIX}housekeeping"
#: Hash of a source's name → the broker's process with which it was reconciled last: see ``broker.reconciler``.
RECONCILED = f"{PREFIX}reconciled"
#: Set of the task queues that are demanded, and the channel on which a new one is announced.
DEMANDED_QUEUES = f"{PREFIX}demanded_queues"
#: Sorted set of message ids by the microsecond they were accepted in; each record is a hash below :func:`message`.
MESSAGES = f"{PREFIX}messages"
#: Hash of a resource → who has claimed it, for which task and until when, as JSON.
CLAIMS = f"{PREFIX}claims"
#: Stream of the messages that were refused or did not go through the broker.
AUDIT = f"{PREFIX}audit"
#: Stream of what changes, for those who watch the fleet: records of tasks and messages, and what AUDIT gets.
NOTICES = f"{PREFIX}notices"
#: Hash of agent id → the last message in which it reported its status.
LAST_STATUS = f"{PREFIX}last_status"
#: Hash of a need and a channel (:mod:`torch_tasks.orchestration.notifying`) → when it was told there, or seen.
NOTIFIED = f"{PREFIX}notified"
#: Sorted set of the channels that some process serves, by the second until which it surely does.
NOTIFIERS = f"{PREFIX}notifiers"
#: Hash of the same → the broker's millisecond at which a server first saw it.
NEEDED_SINCE = f"{PREFIX}needed_since"
#: Set of the accounts with providers of models that were ever used; see :func:`account`.
ACCOUNTS = f"{PREFIX}accounts"
#: Hash of a node → how the last backup ended that it took by itself, as JSON.
STANDING_BACKUPS = f"{PREFIX}standing_backups"
#: Hash of a scope → the latest hold on it, lifted or not, as JSON: see :mod:`torch_tasks.model.hold`.
HOLDS = f"{PREFIX}holds"
#: Hash of agent id → how its git trees stood when its node last looked, as JSON.
GIT_REPORTS = f"{PREFIX}git_reports"
#: Hash of a task that has run for long → since when nothing has changed in it, as JSON.
FOLLOWUPS = f"{PREFIX}followups"
#: Hash of a task → the check-in that was made for its agent.
LOOKED_AFTER = f"{PREFIX}looked_after"
#: Sorted set of the ids of all check-ins by the millisecond they were added in; each is a hash below :func:`checkin`.
CHECKINS = f"{PREFIX}checkins"
#: Sorted set of what beat has to fire, by the broker's millisecond it is due in.
CHECKINS_DUE = f"{PREFIX}checkins_due"
#: Sorted set of the ids of the entries that stand in Celery's own schedule, as :data:`CHECKINS`.
PERIODIC = f"{PREFIX}periodic"
#: Stream of the ids of check-ins of which something changed.
CHECKIN_CHANGES = f"{PREFIX}checkin_changes"
#: The lock of the leading beat, and how often another beat has taken the lead.
BEAT_LEADER = f"{PREFIX}beat_leader"
BEAT_EPOCH = f"{PREFIX}beat_epoch"
#: The format of all that lies on this broker, and the release that said so first, as JSON.
FLEET_FORMAT = f"{PREFIX}fleet_format"
#: String: what the fleet's root says of the fleet's keys, signed.
FLEET_KEYS = f"{PREFIX}fleet_keys"
#: Hash of a public key → the signed request of a machine for a certificate.
CERTIFICATE_REQUESTS = f"{PREFIX}certificate_requests"
#: Hash of a token's id and a public key → the sealed request of a machine that joins.
JOIN_REQUESTS = f"{PREFIX}join_requests"
#: Prefix of Celery's own results.
CELERY_RESULTS = f"{PREFIX}celery:"

SYSTEM_QUEUE = "torch.system"

#: Stands for any role or any skills in a queue's name.
ANY = "any"
#: Words that neither a role nor a skill can be called, because queue names use them.
RESERVED_WORDS = frozenset({ANY, "agent", "node", "system"})


def task_record(task_id: str) -> str:
    """The hash that holds one task's record, and the channel on which its changes are published."""
    return f"{TASK_STATUS}:{task_id}"


def task_history(task_id: str) -> str:
    """The list of what happened to one task, each entry as JSON."""
    return f"{PREFIX}task_history:{task_id}"


def message_trace(trace: str) -> str:
    """Sorted set of the ids of the messages of one trace, by the microsecond in which each was accepted."""
    return f"{PREFIX}message_trace:{trace}"


def checkin_trace(trace: str) -> str:
    """The fire of a check-in that began this trace: the check-in's id and the slot, in milliseconds."""
    return f"{PREFIX}checkin_trace:{trace}"


def task_trace(trace: str) -> str:
    """Sorted set of the ids of the tasks of one trace, by the microsecond in which each was accepted."""
    return f"{PREFIX}task_trace:{trace}"


def bell(name: str) -> str:
    """The list that wakes consumers: one entry for each message put into the queue of this name."""
    return f"{PREFIX}bell:{name}"


def task_diff(ticket: str) -> str:
    """The channel on which what a task changed is published to the one who asked with this ticket."""
    return f"{PREFIX}task_diff:{ticket}"


def backup_part(ticket: str) -> str:
    """The list of the sealed pieces of what a node sends to the one who asked for a backup with this ticket."""
    return f"{PREFIX}backup_part:{ticket}"


def screen(agent_id: str) -> str:
    """The channel on which an agent's screen is published while it is watched."""
    return f"{PREFIX}screen:{agent_id}"


def drawn_screen(agent_id: str) -> str:
    """The channel on which it is published with its colours while it is watched so."""
    return f"{PREFIX}drawn:{agent_id}"


def account(name: str, part: str) -> str:
    """One part of what the fleet knows about an account with a provider of models."""
    return f"{PREFIX}account:{name}:{part}"


def rollups(node: str) -> str:
    """Hash of a day → what this node was like on it, in numbers, as JSON."""
    return f"{PREFIX}rollups:{node}"


def notifying(need: str) -> str:
    """Held for a while by the process that tells of this need by one of its channels."""
    return f"{PREFIX}notifying:{need}"


def key_answer(name: str) -> str:
    """String: the answer to a request for a certificate."""
    return f"{PREFIX}key_answer:{name}"


def message(message_id: str) -> str:
    """The hash that holds one message's record, and the channel on which its changes are published."""
    return f"{PREFIX}message:{message_id}"


def inbox(party: str, urgency: str) -> str:
    """The stream of the ids of the messages that wait for this receiver; emergencies have one of their own."""
    return f"{PREFIX}inbox:{party}" + ("" if urgency == "normal" else f":{urgency}")


def conversation(party: str) -> str:
    """Sorted set of the ids of the messages from and to this party, as :data:`MESSAGES`."""
    return f"{PREFIX}conversation:{party}"


def published(channel: str) -> str:
    """Sorted set of the ids of the messages that were published on this channel, as :data:`MESSAGES`."""
    return f"{PREFIX}published:{channel.removeprefix(PREFIX)}"


def help_wanted(who: str, request: str) -> str:
    """The agents whom somebody asks for help one after the other, and what each has answered (JSON)."""
    return f"{PREFIX}help_wanted:{who}:{request}"


def exchanges(correlation_id: str) -> str:
    return f"{PREFIX}exchanges:{correlation_id}"


def sent_lately(party: str, urgency: str) -> str:
    """How many messages of this urgency this party sent within the last minute."""
    return f"{PREFIX}sent_lately:{party}:{urgency}"


def broadcasts(party: str) -> str:
    """How many broadcasts this party sent within the last minute."""
    return f"{PREFIX}broadcasts:{party}"


def notes(project: str) -> str:
    """The stream of the notes about one project."""
    return f"{PREFIX}notes:{project}"


def checkin(checkin_id: str) -> str:
    """The hash that holds one check-in and where it stands."""
    return f"{CHECKINS}:{checkin_id}"


def checkin_history(checkin_id: str) -> tuple[str, str]:
    """Sorted set of the slots of a check-in that have a history, and the hash of it."""
    return f"{PREFIX}checkin_slots:{checkin_id}", f"{PREFIX}checkin_fires:{checkin_id}"


def checkin_latest(checkin_id: str) -> str:
    """Hash of a receiver → the slot and id of what it got last from a check-in."""
    return f"{PREFIX}checkin_latest:{checkin_id}"


def checkin_begun(checkin_id: str, slot_ms: int) -> str:
    """Exists once a node worker has begun to type this slot's note into a pane."""
    return f"{PREFIX}checkin_begun:{checkin_id}:{slot_ms}"


def done_order(task_id: str) -> str:
    """String: what came of one of Torch's own Celery tasks (JSON, signed)."""
    return f"{PREFIX}done_order:{task_id}"


def request(who: str, operation: str, key: str) -> str:
    """String: a request with an idempotency key, and its reply (JSON)."""
    return f"{PREFIX}request:{who}:{operation}:{key}"


def agent_queue(agent_id: str) -> str:
    return f"torch.agent.{agent_id}"


def node_queue(node: str) -> str:
    return f"torch.node.{node}"


def task_queue(role: str | None, skills: Iterable[str]) -> str:
    """The queue of all tasks that ask for this role and exactly these skills."""
    return f"torch.{role or ANY}.{'+'.join(sorted(skills)) or ANY}"


def is_task_queue(queue: str) -> bool:
    """Whether :func:`task_queue` made the name: all able agents read the queue, so it must be demanded."""
    return queue.startswith("torch.") and queue.count(".") >= 2 and queue.split(".")[1] not in ("agent", "node")


def queue_demand(queue: str) -> tuple[str | None, frozenset[str]]:
    """The role and skills that a name made by :func:`task_queue` asks for."""
    _, role, skills = queue.split(".", 2)
    return None if role == ANY else role, frozenset() if skills == ANY else frozenset(skills.split("+"))
