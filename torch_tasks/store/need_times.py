"""Since when a person has been needed for each thing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import redis

from torch_tasks import keys
from torch_tasks.broker.clock import in_ms


class NeedTimes:
    """When the fleet first saw each need; whichever server looks, and however often one is started anew."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def ages(self, needed: Collection[str], known: Mapping[str, float]) -> dict[str, float]:
        """For how many seconds each of these has been needed, and forget all others.

        ``known`` are ages that the caller saw itself: a broker that has forgotten its own gets these.
        """
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(keys.NEEDED_SINCE)
            time, found = pipe.execute()
        moment = in_ms(time)
        kept = {str(need): int(at) for need, at in found.items() if str(at).isdecimal()}
        since = {need: min(kept.get(need, moment), moment - int(1000 * known.get(need, 0.0))) for need in needed}
        with self._client.pipeline(transaction=False) as pipe:
            for need, at in since.items():
                if kept.get(need) != at:
                    pipe.hset(keys.NEEDED_SINCE, need, str(at))
            if over := [str(need) for need in found if str(need) not in since]:
                pipe.hdel(keys.NEEDED_SINCE, *over)
            pipe.execute()
        return {need: (moment - at) / 1000 for need, at in since.items()}
