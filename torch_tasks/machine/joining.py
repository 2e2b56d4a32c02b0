"""Taking a further machine into the fleet: a token from the machine with the root, shown once through the broker.

The token has a secret that only the two machines know, and what they say to each other is sealed with it, so others
who reach the broker can neither read nor change it. The new machine's private key stays there.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError

from torch_tasks import keys
from torch_tasks.broker.connection import connect
from torch_tasks.caller import CallerKind
from torch_tasks.config_files import glance
from torch_tasks.errors import BadSignature, JoinRefused, KeysUnusable, OtherFleet, WrongUsage
from torch_tasks.fleet import Fleet, fleet
from torch_tasks.machine.broker_logins import keep_given, known_logins, make_for_joining
from torch_tasks.model.broker_address import OWN_PLACE, BrokerAddress
from torch_tasks.model.broker_users import BrokerLogins
from torch_tasks.model.fields import AgentId, Model
from torch_tasks.settings import Settings
from torch_tasks.signing.ed25519 import decode, encode, fingerprint, new_key, public_key_of
from torch_tasks.signing.fleet_keys import FleetKeys
from torch_tasks.signing.keyring import FLEET_FILE, Identity, Keyring, keyring, note_key_change
from torch_tasks.signing.sealed_box import open_with, seal_with
from torch_tasks.store.fleet_format import FormatNote
from torch_tasks.store.key_exchange import KeyExchange
from torch_tasks.system.files import exclusive, make_folder, write_private

log = logging.getLogger(__name__)

_PREFIX = "torch-join_"
_KEPT_SECONDS = 7 * 86_400
"""How long it is remembered of a token that it was used, or has expired."""


class JoinToken(Model):
    """What ``torch-tasks node invite`` prints: it lets one machine join."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    secret: SecretStr
    root: Annotated[str, Field(max_length=64)]
    """The public key of the fleet's first root."""
    until: int
    broker_url: SecretStr
    node: AgentId | None = None
    """The name that the machine gets; None: it has one."""

    @property
    def text(self) -> str:
        fields = self.model_dump() | {
            "secret": self.secret.get_secret_value(),
            "broker_url": self.broker_url.get_secret_value(),
        }
        return _PREFIX + encode(json.dumps(fields).encode())

    def request_of(self, key: str) -> str:
        """The name of a request with this token for this public key."""
        return f"{self.id}:{fingerprint(key)}"

    @classmethod
    def read(cls, text: str) -> Self:
        try:
            if not text.startswith(_PREFIX):
                raise ValueError("it does not begin as one")
            return cls.model_validate_json(decode(text.removeprefix(_PREFIX)))
        except (ValueError, ValidationError) as error:
            why = "a part is missing, or was mistyped" if isinstance(error, ValidationError) else str(error)
            raise WrongUsage(f"this is no token of 'torch-tasks node invite': {why}") from None


class Invitation(Model):
    """What the root's machine remembers of a token."""

    secret: str
    until: int
    only: str | None = None
    """The name of the machine that it is for."""
    logins: BrokerLogins | None = None
    """The users of the broker that were made for that machine."""
    node: str | None = None
    """The machine that joined with it."""
    key: str | None = None
    """That machine's public key."""


class JoinRequest(Model):
    """What the further machine says."""

    node: AgentId
    key: Annotated[str, Field(max_length=64)]


class JoinAnswer(Model):
    """What the root's machine answers: why not, or all that the further machine needs."""

    refused: str = ""
    certificate: str = ""
    fleet_keys: str = ""
    root_place: Annotated[str, Field(max_length=64)] = ""
    """The machine with the fleet's root."""
    logins: BrokerLogins | None = None
    """Its users on the broker, if some were made for it."""


class InvitationDesk:
    """Invites machines, and answers those that come with a token; where the fleet's root is."""

    def __init__(self, fleet: Fleet, ring: Keyring) -> None:
        self._fleet = fleet
        self._exchange = fleet.key_exchange
        self._ring = ring
        self._file = ring.folder / "invitations"
        self._lock = ring.folder / "invitations.lock"

    def invite(self, seconds: float, node: str | None = None) -> JoinToken:
        """A token for one machine; :class:`KeysUnusable` where the root is not.

        With the name of the ``node``, the machine gets that name, and users of its own on the broker: none that
        :class:`NoBrokerUsers` names.
        """
        if not self._ring.may_issue:
            raise KeysUnusable(
                f"{self._ring.folder} does not have the private key of the fleet's root; invite on the machine that has"
            )
        if node and (taken := self._why_taken(node)):
            raise JoinRefused(taken)
        secret, until = encode(secrets.token_bytes(32)), int(time.time() + seconds)
        with exclusive(self._lock):
            known, token_id = self._read(), secrets.token_hex(8)
            note_key_change("keys.invited", f"token {token_id}" + (f" for node {node}" if node else ""), must=True)
            address, logins = self._way_to_broker(known, node, token_id)
            self._write({**known, token_id: Invitation(secret=secret, until=until, only=node, logins=logins)})
        return JoinToken(
            id=token_id,
            secret=SecretStr(secret),
            root=self._ring.fleet_keys.roots[0].key,
            until=until,
            broker_url=address.url,
            node=node,
        )

    def _way_to_broker(
        self, known: Mapping[str, Invitation], node: str | None, token_id: str
    ) -> tuple[BrokerAddress, BrokerLogins | None]:
        """With which address the machine comes, and the users that were made for it."""
        settings = self._fleet.settings
        if settings.broker().place == OWN_PLACE:
            raise JoinRefused(
                "this fleet's broker listens on a socket of this machine alone, which no other reaches; docs/broker.md "
                "says how to have one for several machines"
            )
        if node:
            waiting = [name for name, one in known.items() if one.key is None and one.until > time.time()]
            return make_for_joining(settings, node, token_id, waiting)
        if known_logins(settings):
            raise JoinRefused(
                "this machine's users on the broker are its own. To make some for the other, name it, with the login "
                "of the broker's administrator: 'TORCH_BROKER_URL=… torch-tasks node invite --name NAME'"
            )
        return settings.broker(), None

    def answer(self) -> None:
        """Answer the machines that wait."""
        if not self._file.exists() or not self._ring.may_issue:
            return
        for name, sealed in self._exchange.requests(keys.JOIN_REQUESTS):
            with exclusive(self._lock):
                self._exchange.answer(name, self._answer(name, sealed))

    def _answer(self, name: str, sealed: str) -> str:
        known = self._read()
        token_id = name.partition(":")[0]
        invitation = known.get(token_id)
        if invitation is None:
            log.error("a machine is refused that wants to join with a token that is none of this fleet's")
            return JoinAnswer(refused="no token of this fleet has this id").model_dump_json()
        try:
            request = JoinRequest.model_validate_json(open_with(invitation.secret, sealed, f"request {name}"))
        except (BadSignature, ValidationError) as error:
            log.error("a machine is refused that wants to join with the token %s: %s", token_id, error)
            return JoinAnswer(refused=str(error)).model_dump_json()
        why_not = self._why_not(invitation, request)
        if why_not:
            log.error("%s is refused, which wants to join with the token %s: %s", request.node, token_id, why_not)
            return seal_with(invitation.secret, JoinAnswer(refused=why_not).model_dump_json(), f"answer {name}")
        used = invitation.model_copy(update={"node": request.node, "key": request.key})
        self._write({**known, token_id: used})
        answer = JoinAnswer(
            certificate=self._ring.issue(CallerKind.NODE, request.node, request.key),
            fleet_keys=self._ring.fleet_text,
            root_place=self._ring.node,
            logins=invitation.logins,
        )
        log.info("node %s has joined the fleet", request.node)
        return seal_with(invitation.secret, answer.model_dump_json(), f"answer {name}")

    def _why_not(self, invitation: Invitation, request: JoinRequest) -> str:
        if invitation.key == request.key:
            return ""  # it asks again: it was killed before it had the answer
        if invitation.key:
            return f"the token was used before, by the machine {invitation.node}; it lets one machine join"
        if invitation.until < time.time():
            return f"the token expired {time.time() - invitation.until:.0f} s ago; 'torch-tasks node invite' makes one"
        if invitation.only not in (None, request.node):
            return f"the token is for the machine {invitation.only}, and this one is called {request.node}"
        return self._why_taken(request.node)

    def _why_taken(self, node: str) -> str:
        others = [
            one
            for one in self._ring.issued()
            if (one.kind, one.name) == (CallerKind.NODE, node)
            and one.valid_until > time.time()
            and not self._ring.is_revoked(one)
        ]
        if others or node == self._ring.node:
            return (
                f"the fleet has a machine {node} already; choose another name (TORCH_NODE there, or --name of 'node "
                f"invite'), or revoke that machine's keys on the root's machine: 'torch-tasks keys revoke {node}'"
            )
        return ""

    def _read(self) -> dict[str, Invitation]:
        try:
            found = json.loads(self._file.read_bytes())
            return {name: Invitation.model_validate(one) for name, one in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise KeysUnusable(f"the invitations in {self._file} cannot be read: {error}") from None

    def _write(self, invitations: dict[str, Invitation]) -> None:
        since = time.time() - _KEPT_SECONDS
        kept = {name: one.model_dump(mode="json") for name, one in invitations.items() if one.until > since}
        write_private(self._file, json.dumps(kept))


def invite_machine(seconds: float, node: str | None = None) -> JoinToken:
    """A token of this machine's fleet."""
    return InvitationDesk(fleet(), keyring()).invite(seconds, node)


def join(token: JoinToken, settings: Settings, seconds: float) -> Identity:
    """Make this machine one of the token's fleet: its key is made here, and certified where the root is.

    :class:`JoinRefused` or :class:`OtherFleet` says why not; the same token may be shown again by the same machine.
    """
    if token.until < time.time():
        raise JoinRefused(
            f"the token expired {time.time() - token.until:.0f} s ago; 'torch-tasks node invite' makes one"
        )
    node, address = _name_with(token, settings), _address_with(token, settings)
    exchange = KeyExchange(connect(address))
    FormatNote(connect(address), address.place).require_own()
    _require_fleet_of(token, exchange)
    _leave_own_fleet(token, settings)
    make_folder(settings.keys_folder.parent)
    pending = settings.keys_folder.parent / f".join-{token.id}"
    if not pending.exists():
        write_private(pending, new_key())
    private = pending.read_text()
    text = _ask(token, exchange, JoinRequest(node=node, key=public_key_of(private)), seconds)
    try:
        answer = _opened(text, token, public_key_of(private))
        identity = _settle_in(token, answer, settings, private, node)
        _keep_way_to_broker(answer, settings, address, node)
        return identity
    finally:
        pending.unlink()


def _name_with(token: JoinToken, settings: Settings) -> str:
    named = glance("node")
    if token.node and named not in (None, token.node):
        raise JoinRefused(f"the token is for the machine {token.node}, and TORCH_NODE says {named}; leave that out")
    return token.node or settings.node


def _address_with(token: JoinToken, settings: Settings) -> BrokerAddress:
    """Where this machine reaches the broker, which it may know otherwise, with the token's login if it has none."""
    told = BrokerAddress(url=token.broker_url, source="TORCH_BROKER_URL")
    own = settings.given_broker() or told
    return own if own.login else own.with_login(told.login)


def _require_fleet_of(token: JoinToken, exchange: KeyExchange) -> None:
    """Refuse a broker that belongs to another fleet than the token."""
    if there := exchange.fleet_keys():
        with suppress(BadSignature):  # the root's machine replaces it
            found = FleetKeys.read(there)
            if found.roots[0].key != token.root:
                raise OtherFleet(
                    f"the broker belongs to fleet {found.fleet}, and the token is one of fleet "
                    f"{fingerprint(token.root)}; take a token of the broker's fleet, or another broker"
                )


def _leave_own_fleet(token: JoinToken, settings: Settings) -> None:
    """Put away the keys of a fleet that is this machine's alone; :class:`OtherFleet` if others belong to it."""
    folder = settings.keys_folder
    if not (folder / FLEET_FILE).exists():
        return
    ring = Keyring(folder, settings.node)
    if ring.fleet_keys.roots[0].key == token.root:
        if ring.may_issue:
            raise JoinRefused(f"this machine is the one with the root of fleet {ring.fleet}; show the token elsewhere")
        return
    others = {one.name for one in ring.issued() if one.kind is not CallerKind.PERSON or one.role} - {settings.node}
    if others or not ring.may_issue:
        whose = f", as {', '.join(sorted(others))} do" if others else ""
        raise OtherFleet(
            f"this machine's keys in {folder} belong to fleet {ring.fleet}{whose}; to leave it, move that folder away"
        )
    folder.rename(_unused(folder.with_name(f"{folder.name}-{ring.fleet}")))


def _unused(path: Path) -> Path:
    while path.exists():
        path = path.with_name(f"{path.name}-")
    return path


def _ask(token: JoinToken, exchange: KeyExchange, request: JoinRequest, seconds: float) -> str:
    secret, name = token.secret.get_secret_value(), token.request_of(request.key)
    exchange.forget(keys.JOIN_REQUESTS, name)
    exchange.ask(keys.JOIN_REQUESTS, name, seal_with(secret, request.model_dump_json(), f"request {name}"))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if text := exchange.answer_to(name):
            exchange.forget(keys.JOIN_REQUESTS, name)
            return text
        time.sleep(0.1)
    exchange.forget(keys.JOIN_REQUESTS, name)
    raise JoinRefused(
        f"no machine answered within {seconds:g} s: 'torch-tasks up' must run on the machine that made the token; "
        "then the same token may be shown again"
    )


def _opened(text: str, token: JoinToken, key: str) -> JoinAnswer:
    is_plain = text.startswith("{")
    about = f"answer {token.request_of(key)}"
    try:
        answered = text if is_plain else open_with(token.secret.get_secret_value(), text, about)
        answer = JoinAnswer.model_validate_json(answered)
    except ValidationError:
        raise JoinRefused("the answer from the broker cannot be read") from None
    except BadSignature as error:
        raise JoinRefused(f"the answer from the broker is not one by the token's fleet: {error}") from None
    if answer.refused or is_plain:  # what is not sealed may only refuse
        raise JoinRefused(f"this machine may not join: {answer.refused or 'the answer was not sealed'}")
    return answer


def _settle_in(token: JoinToken, answer: JoinAnswer, settings: Settings, private: str, node: str) -> Identity:
    """Keep the keys that the machine was given, for its owner alone."""
    if FleetKeys.read(answer.fleet_keys).roots[0].key != token.root:
        raise JoinRefused("the answer is of another fleet than the token")
    folder = settings.keys_folder
    ring = Keyring.of_fleet(folder, answer.fleet_keys, node, root_place=answer.root_place)
    return ring.keep(private, answer.certificate)


def _keep_way_to_broker(answer: JoinAnswer, settings: Settings, address: BrokerAddress, node: str) -> None:
    """Keep in the state folder how the machine is called and reaches the broker, as users of its own if it has some."""
    make_folder(settings.state.path)
    if answer.logins:
        address = address.with_login(None)
        keep_given(settings, answer.logins, address)
    joined = {"node": node, "broker_url": address.url.get_secret_value()}
    write_private(settings.state.joined, json.dumps(joined))
