"""The address of a broker: one form for users, redis-py and Celery each in their own."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from flower.utils.broker import Broker as FlowersBroker
from kombu import Connection
from kombu.utils.url import url_to_parts
from pydantic import SecretStr

from torch_tasks.model.broker_address import BrokerAddress, standard_url
from torch_tasks.model.broker_users import BrokerLogin

ASKS = "credential_provider=torch_tasks.broker.logins.OwnLogin"
"""In an address without a login: each connection asks for that of its process."""


def chosen(url: str) -> BrokerAddress:
    return BrokerAddress(url=SecretStr(standard_url(url)), source="TORCH_BROKER_URL")


@pytest.mark.parametrize(
    ("written", "standard", "celerys"),
    [
        ("redis://:pw@host:1/2", "redis://:pw@host:1/2", "redis://:pw@host:1/2"),
        ("rediss://host", "rediss://host", f"rediss://host?{ASKS}"),
        ("unix:///run/v.sock", "unix:///run/v.sock", f"redis+socket:///run/v.sock?{ASKS}"),
        ("redis+socket:///run/v.sock", "unix:///run/v.sock", f"redis+socket:///run/v.sock?{ASKS}"),
        ("unix://me:pw@/v?db=3", "unix://me:pw@/v?db=3", "redis+socket://me:pw@/v?virtual_host=3"),
        ("redis+socket://:pw@/v?virtual_host=3", "unix://:pw@/v?db=3", "redis+socket://:pw@/v?virtual_host=3"),
        ("unix:///v?db=0", "unix:///v", f"redis+socket:///v?{ASKS}"),
        ("unix:///v?db=2", "unix:///v?db=2", f"redis+socket:///v?virtual_host=2&{ASKS}"),
        ("sentinel://a;b:1/fo.o", "sentinel://a:26379;b:1/fo.o/0", f"redis://fo.o.sentinel:26379/0?{ASKS}"),
        (
            "sentinel://:p@a;sentinel://b/foo/2",
            "sentinel://:p@a:26379;b:26379/foo/2",
            "redis://:p@foo.sentinel:26379/2",
        ),
        ("sentinels://a/foo", "sentinels://a:26379/foo/0", f"rediss://foo.sentinel:26379/0?{ASKS}"),
        ("unix:///v?password=p/w", "unix://:p%2Fw@/v", "redis+socket://:p%2Fw@/v"),
    ],
)
def test_both_ways_to_write_a_socket_are_one(written: str, standard: str, celerys: str) -> None:
    assert chosen(written).url.get_secret_value() == standard
    assert chosen(written).celery_url == celerys


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("amqp://:s3cret@host", "must begin with redis://, rediss://, sentinel://, sentinels:// or unix://"),
        ("sentinel://:s3cret@host:26379", "must name the Sentinels and what they watch"),
        ("sentinel://:s3cret@host:x/foo", "must name the Sentinels and what they watch"),
        ("socket:///run/v.sock", "must begin with"),
        ("unix://run/s3cret", "the socket's whole path"),
        ("unix://", "the socket's whole path"),
        ("redis+socket://:s3cret@host/v", "the socket's whole path"),
        ("unix:///v?timeout=3&password=s3cret", "only .*db=NUMBER"),
        ("unix:///v?db=s3cret", "only .*db=NUMBER"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_without_it(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as caught:
        standard_url(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("path", ["/a b/sock", "/jürgen/sock", "/a[1]&b=c/sock", "/a+b:c@d/sock", "/50%41;x?y#z/sock"])
def test_a_socket_of_any_path_is_found_by_all(path: str) -> None:
    address = BrokerAddress.of_socket(Path(path), "torch-tasks up")
    assert urlsplit(address.celery_url).query == ASKS
    address = address.with_login(BrokerLogin(user="me", password="0123abcd"))
    assert address.socket == Path(path)
    options = redis.connection.parse_url(address.url.get_secret_value())
    assert (options["path"], options["password"]) == (path, "0123abcd")
    kombus = url_to_parts(Connection(address.celery_url).hostname)
    assert (kombus.scheme, f"/{kombus.path}", kombus.password) == ("socket", path, "0123abcd")
    if not set("%;?#") & set(path):
        assert f"/{FlowersBroker(address.celery_url).vhost}" == path


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://127.0.0.1", "127.0.0.1:6379/0"),
        ("redis://:secret@127.0.0.1:6379/", "127.0.0.1:6379/0"),
        ("redis://user:secret@broker:7000/3", "broker:7000/3"),
        ("rediss://broker:7000/0", "broker:7000/0"),
        ("unix:///run/valkey.sock", "/run/valkey.sock"),
        ("redis+socket://:secret@/run/valkey.sock", "/run/valkey.sock"),
        ("unix:///run/valkey.sock?db=2", "/run/valkey.sock/2"),
    ],
)
def test_a_broker_is_the_same_place_whatever_its_password(url: str, place: str) -> None:
    assert chosen(url).place == place


def test_this_machines_own_broker_is_the_same_place_before_and_after_its_start() -> None:
    path = Path("/state/broker/sock")
    places = {
        BrokerAddress.of_socket(path, "torch-tasks up").place,
        BrokerAddress.of_socket(path, "nothing").place,
    }
    assert places == {"this machine's own"}


def test_the_servers_that_sentinel_watches_are_reached_with_its_login_and_database() -> None:
    address = chosen("sentinels://me:s3cret@a;b:1/foo/2")
    assert address.sentinels == (("a", 26379), ("b", 1))
    assert address.at("c", 7).url.get_secret_value() == "rediss://me:s3cret@c:7/2"
    assert address.database == 2
    assert address.with_login(None).url.get_secret_value() == "sentinels://a:26379;b:1/foo/2"
    assert str(address) == "sentinels://me:***@a:26379;b:1/foo/2"
