"""Machines of a fleet hear from each other what counts, renew their keys and take further ones in, over the broker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import Broker
from pydantic import SecretStr
from redis.exceptions import NoPermissionError
from waiting import until

from torch_tasks import keys
from torch_tasks.broker.connection import connect
from torch_tasks.caller import CallerKind
from torch_tasks.errors import JoinRefused, KeyRevoked, KeysUnusable, NoBrokerUsers, OtherFleet, TorchError, WrongUsage
from torch_tasks.fleet import Fleet
from torch_tasks.machine import fleet_keys, joining
from torch_tasks.machine.fleet_keys import CertificateDesk, agree, require_own_fleet
from torch_tasks.machine.issued_keys import issue_into
from torch_tasks.machine.joining import InvitationDesk, JoinToken, join
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.model.broker_users import JOINING, BrokerRole, read_logins
from torch_tasks.settings import Settings
from torch_tasks.signing.ed25519 import new_key, public_key_of
from torch_tasks.signing.keyring import RENEWED_AT, Identity, Keyring
from torch_tasks.signing.signature import Purpose, sign, verify
from torch_tasks.system.loops import Loop

SECONDS = 20.0


class Member:
    """A machine with a state folder of its own."""

    def __init__(self, broker: Broker, folder: Path, name: str) -> None:
        self.settings = Settings(
            broker_url=broker.url,  # type: ignore[arg-type]
            state_dir=folder / name,
            keys_dir=folder / name / "keys",
            node=name,
            signing="enforce",
        )
        self.fleet = Fleet(self.settings)

    @property
    def ring(self) -> Keyring:
        return Keyring(self.settings.keys_folder, self.settings.node)

    @property
    def serial(self) -> str:
        return self.ring.identity(CallerKind.NODE).certificate.serial

    def keep_keys(self) -> None:
        """One round of what its node worker does."""
        agree(self.fleet, self.ring)
        certificates, invitations = CertificateDesk(self.fleet, self.ring), InvitationDesk(self.fleet, self.ring)
        certificates.renew_own()
        certificates.answer()
        invitations.answer()

    def invite(self, seconds: float = 60, node: str | None = None) -> JoinToken:
        return InvitationDesk(self.fleet, self.ring).invite(seconds, node)


@pytest.fixture
def machine(broker: Broker, tmp_path: Path) -> Iterator[Callable[[str], Member]]:
    """Makes machines on an empty broker."""
    broker.empty()
    fleet_keys._checked.clear()
    yield lambda name: Member(broker, tmp_path, name)
    broker.empty()
    fleet_keys._checked.clear()


@pytest.fixture
def first(machine: Callable[[str], Member]) -> Member:
    """The machine with the root."""
    first = machine("first")
    first.keep_keys()
    return first


def joined(first: Member, other: Member, token: JoinToken) -> Identity:
    """Show the token on the other machine while the first one answers; raises why it may not join."""
    found: list[Identity | Exception] = []

    def show() -> None:
        try:
            found.append(join(token, other.settings, SECONDS))
        except TorchError as error:
            found.append(error)

    showing = threading.Thread(target=show)
    showing.start()

    def answered() -> bool:
        first.keep_keys()
        return not showing.is_alive()

    until(answered, "the token was answered", SECONDS + 10)
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


@pytest.fixture
def second(first: Member, machine: Callable[[str], Member]) -> Member:
    """A machine that has joined."""
    second = machine("second")
    joined(first, second, first.invite())
    return second


def signed(by: Member) -> str:
    return sign(by.ring, by.ring.identity(CallerKind.NODE), Purpose.MESSAGE, b"text", 60)


def changed(token: JoinToken, **fields: object) -> JoinToken:
    return token.model_copy(update=fields)


def test_a_machine_joins_and_has_all_that_it_needs(first: Member, second: Member, broker: Broker) -> None:
    assert verify(first.ring, signed(second), Purpose.MESSAGE, b"text").signer.name == "second"
    assert verify(second.ring, signed(first), Purpose.MESSAGE, b"text").signer.name == "first"
    assert not second.ring.may_issue
    given = json.loads(second.settings.state.joined.read_text())
    assert given == {"node": "second", "broker_url": broker.url}
    files = [second.settings.state.joined, *second.settings.keys_folder.iterdir()]
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files if file.suffix != ""} == {
        file.name: "0o600" for file in files if file.suffix != ""
    }
    private = second.ring.identity(CallerKind.NODE).private
    with broker.client as client:
        assert [key for key in client.scan_iter() if private in str(client.dump(key))] == []
        assert list(client.scan_iter(f"{keys.PREFIX}key_answer*")) == []


def test_what_was_given_is_settings_of_the_state_folder(
    second: Member, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_STATE_DIR", str(second.settings.state_dir))
    monkeypatch.delenv("TORCH_BROKER_URL", raising=False)
    monkeypatch.delenv("TORCH_NODE", raising=False)
    found = Settings()
    assert (found.node, found.broker().url.get_secret_value()) == ("second", broker.url)
    monkeypatch.setenv("TORCH_NODE", "other")
    assert Settings().node == "other"


@pytest.fixture
def no_users(broker: Broker) -> Iterator[None]:
    """A broker that has no users of other machines, before the test and after it."""
    yield
    with broker.client as client:
        others = [name for name in client.acl_users() if "second" in name or name.startswith(JOINING)]
        client.acl_deluser(*others)


@pytest.mark.usefixtures("no_users")
def test_a_machine_that_was_named_gets_users_of_its_own(
    first: Member, machine: Callable[[str], Member], broker: Broker
) -> None:
    second, former = machine("second"), first.invite(-1, "second")
    token = first.invite(60, "second")
    with broker.client as client:
        joiners = [name for name in client.acl_users() if name.startswith(JOINING)]
    assert joiners == [f"{JOINING}{token.id}"]  # that of the token which is over has gone
    assert token.id != former.id
    second.settings = second.settings.model_copy(update={"broker_url": None})
    joined(first, second, token)
    kept = read_logins(second.settings.state.broker_logins)
    assert kept
    assert {login.user for login in kept.logins.values()} == {f"torch-{role}-second" for role in BrokerRole}
    told = json.loads(second.settings.state.joined.read_text())
    assert told["node"] == "second"
    address = BrokerAddress(url=told["broker_url"], source="TORCH_BROKER_URL")
    assert (address.login, kept.place) == (None, address.place)
    for login in kept.logins.values():
        client = connect(address.with_login(login))
        assert client.ping()
        for forbidden in ("CONFIG GET *", "ACL LIST", "FLUSHALL"):
            with pytest.raises(NoPermissionError):
                client.execute_command(*forbidden.split())
        assert login.password not in repr(kept) + repr(token) + token.text


@pytest.mark.usefixtures("no_users")
def test_who_comes_with_a_token_can_ask_to_join_and_nothing_else(first: Member) -> None:
    client = connect(BrokerAddress(url=first.invite(60, "second").broker_url, source="TORCH_BROKER_URL"))
    assert client.getrange(keys.FLEET_KEYS, 0, 9)
    attempts = [
        f"SET {keys.FLEET_KEYS} x", f"DEL {keys.FLEET_KEYS}", f"HGETALL {keys.JOIN_REQUESTS}", "KEYS *", "SCAN 0",
        f"HSET {keys.CERTIFICATE_REQUESTS} a b", f"LPUSH {keys.SYSTEM_QUEUE} x", "PUBLISH celery.pidbox x",
        f"GET {keys.task_record('1')}", "ACL LIST", "CLIENT LIST", "FLUSHALL",
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(NoPermissionError):
            client.execute_command(*attempt.split())


@pytest.mark.usefixtures("no_users")
def test_a_token_for_a_name_is_for_no_other(first: Member, machine: Callable[[str], Member]) -> None:
    token = first.invite(60, "second")
    with pytest.raises(JoinRefused, match="the token is for the machine second, and this one is called third"):
        joined(first, machine("third"), changed(token, node=None))
    joined(first, machine("second"), token)
    with pytest.raises(JoinRefused, match="the fleet has a machine second already"):
        first.invite(60, "second")


def test_nobody_makes_users_without_a_login_that_may(first: Member) -> None:
    first.settings = first.settings.model_copy(update={"broker_url": None})
    first.fleet = Fleet(first.settings)
    with pytest.raises(JoinRefused, match="listens on a socket of this machine alone"):
        first.invite()
    first.settings = first.settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")})
    first.fleet = Fleet(first.settings)
    with pytest.raises(NoBrokerUsers, match="node invite --name second"):
        first.invite(60, "second")


def test_a_token_lets_one_machine_join(first: Member, machine: Callable[[str], Member]) -> None:
    token = first.invite()
    joined(first, machine("second"), token)
    for name in ("third", "second"):
        with pytest.raises(JoinRefused, match="used before, by the machine second"):
            joined(first, machine(name), token)


def test_a_machine_that_was_killed_before_it_had_the_answer_asks_again(
    first: Member, machine: Callable[[str], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    token, second = first.invite(), machine("second")
    with monkeypatch.context() as patch:
        patch.setattr(joining, "_settle_in", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        asking = second.settings.keys_folder.parent / f".join-{token.id}"
        second.settings.state_dir.mkdir(parents=True)
        asking.write_text(key := new_key())
        request = joining.JoinRequest(node="second", key=public_key_of(key))
        name = token.request_of(request.key)
        sealed = joining.seal_with(token.secret.get_secret_value(), request.model_dump_json(), f"request {name}")
        first.fleet.key_exchange.ask(keys.JOIN_REQUESTS, name, sealed)
        first.keep_keys()
    assert joined(first, second, token).private == key
    assert not asking.exists()


def test_an_expired_token_is_refused_on_both_machines(first: Member, machine: Callable[[str], Member]) -> None:
    token = first.invite(-1)
    with pytest.raises(JoinRefused, match="expired"):
        join(token, machine("second").settings, SECONDS)
    with pytest.raises(JoinRefused, match="may not join: the token expired"):
        joined(first, machine("second"), changed(token, until=int(time.time()) + 60))


def test_a_forged_token_is_refused(first: Member, machine: Callable[[str], Member]) -> None:
    token, other = first.invite(), machine("second")
    with pytest.raises(JoinRefused, match="not sealed with the secret of this token"):
        joined(first, other, changed(token, secret=SecretStr(new_key())))
    with pytest.raises(JoinRefused, match="no token of this fleet has this id"):
        joined(first, other, changed(token, id="0" * 16))
    assert joined(first, other, token).certificate.name == "second"


@pytest.mark.parametrize("text", ["", "torch-join_", "torch-join_x", "torch_abc", "torch-join_e30"])
def test_what_is_no_token_is_named(text: str) -> None:
    with pytest.raises(WrongUsage, match="no token of 'torch-tasks node invite'"):
        JoinToken.read(text)


def test_a_token_of_another_fleet_is_refused(first: Member, machine: Callable[[str], Member]) -> None:
    theirs = machine("stranger")
    with pytest.raises(OtherFleet, match=f"belongs to fleet {first.ring.fleet}.*one of fleet {theirs.ring.fleet}"):
        join(theirs.invite(), machine("second").settings, SECONDS)


def test_a_second_machine_of_a_name_is_refused(first: Member, second: Member, machine: Callable[[str], Member]) -> None:
    token = first.invite()
    again = machine("elsewhere")
    for name in ("second", "first"):
        settings = again.settings.model_copy(update={"node": name})
        again.settings = settings
        with pytest.raises(JoinRefused, match=f"has a machine {name} already; choose another name"):
            joined(first, again, token)
    first.ring.revoke("second")
    again.settings = again.settings.model_copy(update={"node": "second"})
    assert joined(first, again, token).certificate.name == "second"


def test_keys_that_a_machine_made_for_itself_alone_are_put_away(
    first: Member, machine: Callable[[str], Member]
) -> None:
    second = machine("second")
    second.ring.identity(CallerKind.NODE)
    own = second.ring.fleet
    joined(first, second, first.invite())
    assert second.ring.fleet == first.ring.fleet
    assert Keyring(second.settings.keys_folder.with_name(f"keys-{own}"), "second").may_issue


def test_a_machine_with_a_fleet_of_its_own_does_not_leave_it_by_a_token(
    first: Member, machine: Callable[[str], Member]
) -> None:
    second = machine("second")
    second.ring.issue(CallerKind.NODE, "its-own", public_key_of(new_key()))
    with pytest.raises(OtherFleet, match="as its-own do; to leave it, move that folder away"):
        join(first.invite(), second.settings, SECONDS)


def test_a_stranger_at_the_broker_is_named(first: Member, machine: Callable[[str], Member]) -> None:
    stranger = machine("stranger")
    with pytest.raises(OtherFleet, match=f"belongs to fleet {first.ring.fleet}, and this machine has no keys"):
        require_own_fleet(stranger.fleet)
    assert not stranger.settings.keys_folder.exists()
    with pytest.raises(OtherFleet, match=f"belongs to fleet {first.ring.fleet}.*node join TOKEN"):
        agree(stranger.fleet, stranger.ring)
    require_own_fleet(first.fleet)


def test_a_revocation_reaches_all_and_an_empty_broker_forgets_none(
    first: Member, second: Member, broker: Broker
) -> None:
    stolen = signed(second)
    first.ring.revoke(second.serial)
    for each in (first, second):
        each.keep_keys()
    with pytest.raises(KeyRevoked):
        verify(second.ring, stolen, Purpose.MESSAGE, b"text")
    broker.empty()
    second.keep_keys()
    assert first.fleet.key_exchange.fleet_keys() == first.ring.fleet_text


def test_what_somebody_wrote_over_it_is_replaced(first: Member, broker: Broker) -> None:
    with broker.client as client:
        for junk in ("", "x", "a.b", first.ring.fleet_text[:-2]):
            client.set(keys.FLEET_KEYS, junk)
            first.keep_keys()
            assert client.get(keys.FLEET_KEYS) == first.ring.fleet_text


def test_a_key_that_ends_soon_is_renewed_by_the_roots_machine(
    first: Member, second: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, old = second.serial, signed(second)
    left = second.ring.identity(CallerKind.NODE).certificate.valid_until - time.time()
    later = time.time() + left * (1 - RENEWED_AT) + 60
    monkeypatch.setattr("torch_tasks.signing.keyring.time.time", lambda: later)
    second.keep_keys()
    assert second.serial == before
    first.keep_keys()
    second.keep_keys()
    assert second.serial != before
    monkeypatch.undo()
    assert verify(first.ring, old, Purpose.MESSAGE, b"text")


def test_a_new_root_reaches_all_and_renews_their_keys(first: Member, second: Member) -> None:
    before = second.serial
    first.ring.rotate_root()
    for each in (first, second, first, second):
        each.keep_keys()
    assert second.ring.fleet_text == first.ring.fleet_text
    assert second.ring.identity(CallerKind.NODE).certificate.issuer == first.ring.fleet_keys.latest.name
    assert second.serial != before


def test_a_machine_without_the_root_has_its_key_replaced_by_the_one_with_it(first: Member, second: Member) -> None:
    before, old = second.serial, signed(second)
    answering = Loop("root", first.keep_keys, pause=0.05)
    answering.start()
    try:
        new = CertificateDesk(second.fleet, second.ring).rotate_own(SECONDS)
    finally:
        answering.stop()
    assert new.certificate.serial == second.serial != before
    assert verify(first.ring, old, Purpose.MESSAGE, b"text")
    assert verify(first.ring, signed(second), Purpose.MESSAGE, b"text").signer.serial == second.serial
    assert list(second.settings.keys_folder.glob("*.next")) == []


def test_a_key_that_nobody_renews_stays_and_it_is_said_where_to_go(first: Member, second: Member) -> None:
    before = second.serial
    with pytest.raises(KeysUnusable, match="up' on the machine that has it, first when this"):
        CertificateDesk(second.fleet, second.ring).rotate_own(0.3)
    assert second.serial == before
    first.keep_keys()
    second.keep_keys()  # its node worker takes what was asked for
    assert second.serial != before


def test_issued_keys_are_replaced_where_they_were_issued(first: Member, tmp_path: Path) -> None:
    issue_into(first.ring, tmp_path / "ci", CallerKind.PROGRAM, "ci", "program", 60)
    with pytest.raises(KeysUnusable, match=r"issue --name ci --role program --out FOLDER' on .+, first when"):
        CertificateDesk(first.fleet, Keyring(tmp_path / "ci", "elsewhere")).rotate_own(0.3)


def test_nobody_renews_a_key_that_he_does_not_have(first: Member, second: Member) -> None:
    """A request that names another's key, one of a revoked key, and one of a program."""
    exchange, mine = first.fleet.key_exchange, public_key_of(private := new_key())
    exchange.ask(keys.CERTIFICATE_REQUESTS, mine, signed(second))
    program = first.ring.issue(CallerKind.PROGRAM, "ci", mine, lasts_seconds=60)
    ci = Identity(first.ring.certificate(program), program, private)
    other = public_key_of(new_key())
    exchange.ask(keys.CERTIFICATE_REQUESTS, other, sign(first.ring, ci, Purpose.KEYS, other.encode(), 60))
    third = public_key_of(new_key())
    of_second = second.ring.identity(CallerKind.NODE)
    exchange.ask(keys.CERTIFICATE_REQUESTS, third, sign(second.ring, of_second, Purpose.KEYS, third.encode(), 60))
    first.ring.revoke("second")
    first.keep_keys()
    assert [exchange.answer_to(key) for key in (mine, other, third)] == [None, None, None]
