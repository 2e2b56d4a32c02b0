"""A broker behind TLS: which certificates are taken, and what is said of the others."""

from __future__ import annotations

import datetime
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from waiting import until

from torch_tasks.broker.connection import connect
from torch_tasks.errors import BrokerUntrusted, InvalidSettings
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.settings import Settings, settings

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Made(NamedTuple):
    """A certificate and its key, and the files of both."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_file: Path
    key_file: Path


Make = Callable[..., Made]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, by: Made | None = None, host: str = "127.0.0.1", end: datetime.datetime = NOW + DAY) -> Made:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by.certificate.subject if by else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 9 * DAY)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if by:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
            builder = builder.add_extension(issuer, critical=False)
        certificate = builder.sign(by.key if by else key, hashes.SHA256())
        files = folder / f"{name}.pem", folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Made(certificate, key, *files)

    return make


@pytest.fixture(scope="module")
def authority(make: Make) -> Made:
    return make("authority")


class Server:
    """As much of a broker as a connection needs to begin; keeps what it was sent."""

    def __init__(self, made: Made | None, clients: Made | None = None) -> None:
        self.received = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if made:
            self._context.load_cert_chain(made.certificate_file, made.key_file)
        if clients:
            self._context.load_verify_locations(clients.certificate_file)
            self._context.verify_mode = ssl.CERT_REQUIRED
            # Later versions let the client end the handshake, and refuse its certificate only afterwards.
            self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._tls = made is not None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            if self._tls:
                connection = self._context.wrap_socket(connection, server_side=True)
            while got := connection.recv(4096):
                self.received += got
                if not self._tls:
                    connection.sendall(b"-ERR what is this?\r\n")
                for command in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", got):
                    connection.sendall(b"+PONG\r\n" if command == b"PING" else b"+OK\r\n")
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._socket.close()


Reach = Callable[..., Server]


def _are_read() -> bool:
    """A thread of another test that had begun to read the settings may put the former ones back."""
    settings.cache_clear()
    return settings() == Settings()


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reach]:
    """Connects to a server with this certificate, with these settings."""
    servers: list[Server] = []

    def reach(made: Made | None, clients: Made | None = None, **given: object) -> Server:
        for name, value in given.items():
            monkeypatch.setenv(f"TORCH_BROKER_{name.upper()}", str(value))
        until(_are_read, "the settings are those of this test")
        servers.append(Server(made, clients))
        url = SecretStr(f"rediss://:s3cret@127.0.0.1:{servers[-1].port}/0")
        try:
            connect(BrokerAddress(url=url, source="TORCH_BROKER_URL")).ping()
        finally:
            monkeypatch.undo()
            settings.cache_clear()
        return servers[-1]

    reach.servers = servers  # type: ignore[attr-defined]
    yield reach
    for server in servers:
        server.close()


def test_a_certificate_of_the_chosen_authority_is_taken(reach: Reach, make: Make, authority: Made) -> None:
    assert b"s3cret" in reach(make("good", authority), ca=authority.certificate_file).received


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("expired", {"end": NOW - DAY}, r"its certificate has expired .*Have the broker use a new one"),
        ("elsewhere", {"host": "127.0.0.2"}, r"is for another host .*Name the broker in TORCH_BROKER_URL as its"),
        ("alone", {"by": None}, r"is signed by itself alone .*Set TORCH_BROKER_CA to that certificate"),
    ],
)
def test_a_bad_one_is_refused_by_name_and_sent_nothing(
    reach: Reach,
    make: Callable[..., Made],
    authority: Made,
    name: str,
    how: dict[str, object],
    said: str,
) -> None:
    made = make(name, **{"by": authority, **how})
    with pytest.raises(BrokerUntrusted, match=said) as caught:
        reach(made, ca=authority.certificate_file)
    assert "s3cret" not in str(caught.value)
    assert reach.servers[-1].received == b""  # type: ignore[attr-defined]


def test_another_authoritys_is_refused(reach: Reach, make: Make, authority: Made) -> None:
    with pytest.raises(BrokerUntrusted, match=r"an authority that this machine does not know.*Set TORCH_BROKER_CA"):
        reach(make("foreign", make("another authority")), ca=authority.certificate_file)
    assert reach.servers[-1].received == b""  # type: ignore[attr-defined]


def test_a_name_is_not_looked_at_if_the_settings_say_so(reach: Reach, make: Make, authority: Made) -> None:
    made = make("elsewhere again", authority, host="127.0.0.2")
    assert reach(made, ca=authority.certificate_file, check_hostname="false").received


def test_a_server_without_tls_is_sent_no_password(reach: Reach, authority: Made) -> None:
    with pytest.raises(BrokerUntrusted, match=r"speaks no TLS there.*redis://"):
        reach(None, ca=authority.certificate_file)
    assert b"s3cret" not in reach.servers[-1].received  # type: ignore[attr-defined]


def test_a_server_that_wants_a_certificate_gets_it_or_is_told_apart(reach: Reach, make: Make, authority: Made) -> None:
    server, own = make("server", authority), make("client", authority)
    with pytest.raises(BrokerUntrusted, match=r"does not take this machine's certificate.*TORCH_BROKER_CERTIFICATE"):
        reach(server, authority, ca=authority.certificate_file)
    files = {"certificate": own.certificate_file, "key": own.key_file}
    assert reach(server, authority, ca=authority.certificate_file, **files).received


def test_a_file_that_is_none_is_named_by_its_setting(reach: Reach, make: Make, authority: Made, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"TORCH_BROKER_CA names .*/none\.pem, which is no file"):
        reach(make("good again", authority), ca=tmp_path / "none.pem")
