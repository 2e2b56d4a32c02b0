"""How long a spawned agent takes until it is ready, and a retired one until it is gone."""

from __future__ import annotations

from benchmarks.harness import Stage, await_true, clock
from benchmarks.measures import Measure, percentile

READY_SECONDS = 60.0


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """One after the other on a node worker; then some at once."""
    times, together = (3, 3) if quick else (20, 8)
    torch = stage.torch
    with stage.worker("torch_tasks", "--node", "--agent", "idle-1:idle", log="node"):
        await_true(lambda: any(node.online for node in torch.nodes()), READY_SECONDS, "the node worker is there")
        await_true(lambda: any(info.free for info in torch.agents()), READY_SECONDS, "its agent is ready")
        ready, gone = [], []
        for _ in range(times):
            ready.append(clock(lambda: torch.spawn("bench")))
            gone.append(clock(lambda: torch.retire("bench-1")))
        at_once = clock(lambda: [spawn.wait() for spawn in [torch.spawn("bench", wait=False) for _ in range(together)]])
        for number in range(1, together + 1):
            torch.retire(f"bench-{number}")
        torch.retire("idle-1")
    return [
        Measure("spawn → ready p50", percentile(ready, 50), "s"),
        Measure("spawn → ready max", max(ready), "s"),
        Measure(f"{together} at once → all ready", at_once, "s"),
        Measure("retire → gone p50", percentile(gone, 50), "s"),
    ]
