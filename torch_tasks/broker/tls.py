"""TLS to the broker: with which certificates, and in words why a server is not trusted."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch_tasks.errors import InvalidSettings
from torch_tasks.model.broker_address import BrokerAddress
from torch_tasks.settings import Settings

_UNTRUSTED = {
    9: ("is not valid yet", "Set the clock of this machine or of the one that made it"),
    10: ("has expired", "Have the broker use a new one"),
    18: ("is signed by itself alone", "Set TORCH_BROKER_CA to that certificate if it is your broker's"),
    19: ("comes from an authority that this machine does not know", "Set TORCH_BROKER_CA to its certificate"),
    20: ("comes from an authority that this machine does not know", "Set TORCH_BROKER_CA to its certificate"),
    21: ("comes from an authority that this machine does not know", "Set TORCH_BROKER_CA to its certificate"),
    62: ("is for another host", "Name the broker in TORCH_BROKER_URL as its certificate does"),
    64: ("is for another host", "Name the broker in TORCH_BROKER_URL as its certificate does"),
}
"""What OpenSSL finds wrong with a certificate, by its number, and what to do."""
_OUR_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED")
"""How a server says that it wants another certificate of its client."""


def client_options(address: BrokerAddress, chosen: Settings) -> dict[str, Any]:
    """TLS as redis-py, kombu and Celery take it; empty for an address without, or that says all itself."""
    url = address.url.get_secret_value()
    if not url.startswith(("rediss://", "sentinels://")) or "ssl_" in url:
        return {}
    files = {
        "ssl_ca_certs": _existing(chosen.broker_ca, "TORCH_BROKER_CA"),
        "ssl_certfile": _existing(chosen.broker_certificate, "TORCH_BROKER_CERTIFICATE"),
        "ssl_keyfile": _existing(chosen.broker_key, "TORCH_BROKER_KEY"),
    }
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": chosen.broker_check_hostname,
        **{name: file for name, file in files.items() if file},
    }


def why_untrusted(causes: Iterable[BaseException]) -> str | None:
    """What is wrong with the certificates of the broker or of this machine, and what to do; None if nothing is."""
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            what, remedy = _UNTRUSTED.get(cause.verify_code, (f"is refused: {cause.verify_message}", "Correct it"))
            return f"its certificate {what} ({cause.verify_message}), so nothing was sent to it. {remedy}"
        if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            return "it speaks no TLS there, so nothing was sent to it. Write redis:// if that is meant, or its TLS port"
        if isinstance(cause, ssl.SSLError) and any(word in (cause.reason or "") for word in _OUR_CERTIFICATE):
            return (
                f"it does not take this machine's certificate ({cause.reason}). Set TORCH_BROKER_CERTIFICATE and "
                "TORCH_BROKER_KEY to one that it takes"
            )
    return None


def _existing(file: Path | None, variable: str) -> str | None:
    if file and not file.is_file():
        raise InvalidSettings(f"{variable} names {file}, which is no file")
    return str(file) if file else None
