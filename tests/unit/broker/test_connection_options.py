"""What redis-py and Celery tell a new connection of."""

from __future__ import annotations

import redis
from pydantic import SecretStr

from torch_tasks.broker.following import FollowingConnection
from torch_tasks.model.broker_address import BrokerAddress


def test_a_pool_that_redis_made_by_itself_makes_connections_that_follow() -> None:
    options = redis.Redis(host="127.0.0.1").connection_pool.connection_kwargs
    assert "driver_info" in options  # as Celery's results have it
    address = BrokerAddress(url=SecretStr("redis://127.0.0.1:6379/0"), source="the Celery app")
    connection = FollowingConnection(follows=address, **options)
    assert connection.driver_info is None
