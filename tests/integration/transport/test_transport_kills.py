"""Thirty workers are killed while thousands of small tasks flow: none is lost."""

from __future__ import annotations

import random
import time

import pytest
from transport_parts import QUEUE, Bench
from waiting import until

TASKS = 3000
KILLS = 30
WORKERS = 3


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_task_is_lost_when_workers_are_killed_under_load(bench: Bench) -> None:
    chance = random.Random(3)
    ids = [f"task-{number}" for number in range(TASKS)]
    workers = [bench.worker(f"worker{number}") for number in range(WORKERS)]
    with bench.app.pool.acquire(block=True) as connection, connection.Producer() as producer, producer.batch(100):
        for name in ids:
            bench.app.send_task("work", (0.02,), queue=QUEUE, priority=6, task_id=name, producer=producer)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 1.0))
        victim = chance.choice(workers)
        victim.kill()
        victim.start()
    until(lambda: len({line["id"] for line in bench.seen("end")}) == TASKS, "all tasks have been done", 240)
    bench.await_settled()
    begun = [line["id"] for line in bench.seen("begin")]
    print(f"{KILLS} kills, {TASKS} tasks: lost {len(set(ids) - set(begun))}, begun again {len(begun) - TASKS}")
    assert set(begun) == set(ids)
    assert len(begun) - TASKS <= KILLS
    assert not bench.dead_letters()
