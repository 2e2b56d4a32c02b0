"""Whether a try is still this agent's, as the task's record tells."""

from __future__ import annotations

import redis

from torch_tasks.errors import BrokerUnreachable
from torch_tasks.model.agent import AgentInfo
from torch_tasks.store.tasks import TaskRecords
from torch_tasks.workers.host.runs import Run


def is_lost(run: Run, records: TaskRecords, info: AgentInfo) -> bool:
    """The task's record has gone on without this try. While the broker is away, nobody can tell."""
    kept = run.recall()
    if kept is None:  # disowned already
        return True
    try:
        standing = records.standing(run.task_id)
    except (redis.RedisError, BrokerUnreachable):
        return False
    account = kept[0]
    ours = (account.get("agent"), account.get("node"))
    owner = standing.owner
    # What a broker says that came back with older data is no news.
    later = standing.revision > int(account["revision"])
    return later and (owner is None or owner[:2] != ours or owner[2] > info.incarnation)
