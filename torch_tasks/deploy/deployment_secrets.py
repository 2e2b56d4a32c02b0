"""The secrets of a deployment: its broker's password and certificate, and the passwords of Flower and Grafana.

Each lies in a file of its own, which the files of the deployment name. What is there already stays.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from torch_tasks.errors import TorchError
from torch_tasks.system.files import make_folder, write_private

BROKER_HOST = "dragonfly"
"""The broker's name in the network of a deployment."""
_AUTHORITY_DAYS = 3650
_CERTIFICATE_DAYS = 825
_BACKDATED = timedelta(hours=1)
"""For machines whose clocks are slow."""


def make_missing(folder: Path, namespace: str) -> list[Path]:
    """Make what is not there; the files that were made.

    The folder is its owner's alone. The files are read by the users that containers run as, so they are not.
    """
    make_folder(folder)
    if (folder / "broker-ca.pem").exists() and not (folder / "broker-ca-key.pem").exists():
        raise TorchError(f"{folder} has the broker's authority without its key: put broker-ca-key.pem back there first")
    before = set(folder.iterdir())
    _make(folder, _authority, "broker-ca-key.pem", "broker-ca.pem")
    _make(folder, lambda: _certificate(folder, namespace), "broker-key.pem", "broker-cert.pem")
    _make(folder, _broker, "broker-password", "broker.flags", "broker-admin")
    _make(folder, lambda: (f'basic_auth = ["operator:{secrets.token_urlsafe(18)}"]\n',), "flower.py")
    _make(folder, lambda: (secrets.token_urlsafe(18),), "grafana-password")
    return sorted(set(folder.iterdir()) - before)


def _make(folder: Path, make: Callable[[], tuple[str, ...]], *names: str) -> None:
    if all((folder / name).exists() for name in names):
        return
    for name, text in zip(names, make(), strict=True):
        write_private(folder / name, text)
        if name not in ("broker-ca-key.pem", "broker-admin"):  # which no container reads
            (folder / name).chmod(0o644)


def _broker() -> tuple[str, str, str]:
    """The password of its administrator, DragonflyDB's flag with it, and the address with that login."""
    password = secrets.token_hex(24)
    return password, f"--requirepass={password}\n", f"rediss://default:{password}@{BROKER_HOST}:6379/0"


def _authority() -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Torch's broker: authority")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _builder(name, name, key.public_key(), _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem_of(key), made.public_bytes(Encoding.PEM).decode()


def _certificate(folder: Path, namespace: str) -> tuple[str, str]:
    authority = x509.load_pem_x509_certificate((folder / "broker-ca.pem").read_bytes())
    authority_key = load_pem_private_key((folder / "broker-ca-key.pem").read_bytes(), None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    hosts = [BROKER_HOST, f"{BROKER_HOST}.{namespace}", f"{BROKER_HOST}.{namespace}.svc", "localhost"]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, BROKER_HOST)])
    made = (
        _builder(name, authority.subject, key.public_key(), _CERTIFICATE_DAYS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _pem_of(key), made.public_bytes(Encoding.PEM).decode()


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
