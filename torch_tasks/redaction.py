"""Secrets in texts: found by what they are, and replaced where Torch keeps or shows a text.

Two sorts are found: the exact values of Torch's own secrets, which the code that makes or reads one names with
:func:`protect`; and what has the form of a well-known key. The forms are the rules of the scanner ``detect-secrets``
(as the package ``bc-detect-secrets``, which is kept) where it has one that ordinary text does not fit, and Torch's own
for the rest. The scanner is loaded only once a text holds what one of its secrets must hold.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_SHORTEST = 8
"""A shorter text holds no secret; and a shorter secret of Torch's own would be found in ordinary words."""
_SHORT = 200
"""Of texts no longer than this, a process keeps in mind which hold no secret."""
_PLACEHOLDER = re.compile(
    r"[*x.•]+|[{<$%\[(].*|.*[}>\])]|\\.*|(?:your|my|the|some)?[_-]?(?:pass(?:word|wd|phrase)?|pw|pwd|secret|token|key|user|"
    r"guest|example|changeme|postgres|root|admin|test|redacted)(?:[_-]?here)?",
    re.IGNORECASE,
)
"""What stands for a password in templates and examples."""


class Secret(NamedTuple):
    """Where in a text a secret stands, and what it is."""

    start: int
    end: int
    what: str


Pattern = re.Pattern[str]
_REST = re.compile("[A-Za-z0-9_]*")
"""The rest of a key that is longer than those of its kind were."""


def _is_jwt(text: str) -> bool:
    """Whether the first part of a token is a JSON object in base64."""
    return _decoded(text.partition(".")[0]).startswith(b"{")


def _is_bot(text: str) -> bool:
    """Whether the first part of a token is the number of a bot in base64."""
    return _decoded(text.partition(".")[0]).isdigit()


def _is_mixed(text: str) -> bool:
    """Whether it has digits and letters of both cases, which words and names seldom have."""
    return bool(re.search(r"\d", text) and re.search("[a-z]", text) and re.search("[A-Z]", text))


def _is_drawn(text: str) -> bool:
    """Whether it looks drawn by lot among all letters and digits: neither a digest nor a path."""
    return len(re.findall(r"\d", text)) > 1 and all(len(re.findall(case, text)) > 3 for case in ("[a-z]", "[A-Z]"))


def _is_no_placeholder(text: str) -> bool:
    return not _PLACEHOLDER.fullmatch(text)


def _decoded(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (ValueError, binascii.Error):
        return b""


@dataclass(frozen=True, eq=False)
class _Rule:
    what: str
    hints: tuple[str, ...] = ()
    """One of them stands in every text that holds such a secret; none: ``begins`` does."""
    form: str = ""
    """The form; its group is the secret, or all of it where it has none."""
    begins: str = ""
    """How the word begins, before what ``form`` says of the rest."""
    scanner: str = ""
    """Instead of ``form``: the scanner's plugin, as ``module:Class``."""
    holds: Callable[[str], bool] = lambda _: True
    """Whether what has the form is a secret."""

    @cached_property
    def forms(self) -> tuple[Pattern, ...]:
        if not self.scanner:
            begins = re.escape(self.begins)  # first, as the engine finds a text fastest by its first letters
            return (re.compile(f"{begins}(?<![A-Za-z0-9]{begins}){self.form}" if begins else self.form),)
        module, _, name = self.scanner.partition(":")
        return tuple(getattr(import_module(f"detect_secrets.plugins.{module}"), name).denylist)

    def find(self, text: str) -> Iterator[Secret]:
        for form in self.forms:
            for found in form.finditer(text):
                group = min(form.groups, 1)
                if self.scanner and len(found[group] or "") < _SHORTEST:  # the scanner's group is a mere part
                    group = 0
                start, end = found.span(group)
                if self.holds(found[group]):
                    yield Secret(start, _REST.match(text, end).end(), self.what)  # type: ignore[union-attr]


_AWS_SECRET = 40
"""The length of the secret part of an AWS key, and of the hash of a commit."""

RULES = (
    _Rule(
        "an AWS key",
        ("AKIA", "ASIA", "ABIA", "ACCA", "aws", "AWS", "Aws"),
        scanner="aws:AWSKeyDetector",
        holds=lambda text: len(text) != _AWS_SECRET or _is_drawn(text),
    ),
    _Rule("a GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), scanner="github_token:GitHubTokenDetector"),
    _Rule("a GitHub token", begins="github_pat_", form="[A-Za-z0-9_]{60,}"),
    _Rule(
        "a GitLab token",
        ("glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "glcbt-", "glptt-", "glagent-", "gloas-"),
        begins="gl",
        form=r"(?:pat|dt|ft|soat|rt|cbt|ptt|agent|oas)-[A-Za-z0-9_-]{20,}(?:\.[a-z0-9]{2}\.[a-z0-9]{9})?",
    ),
    _Rule("a Slack token", ("xox", "hooks.slack.com"), scanner="slack:SlackDetector"),
    _Rule("a Slack token", ("xapp-", "xoxe."), r"(?:xapp-\d-|xoxe\.xox[bp]-\d-)[A-Za-z0-9-]{20,}"),
    _Rule("a Stripe key", ("k_live_",), scanner="stripe:StripeDetector"),
    _Rule("a Stripe key", ("k_live_", "k_test_", "whsec_"), "(?:[rs]k_(?:live|test)|whsec)_[0-9A-Za-z]{24,}"),
    _Rule("an Anthropic key", begins="sk-ant-", form="[A-Za-z0-9_-]{32,}"),
    _Rule("an API key", begins="sk-", form="(?!ant-)[A-Za-z0-9_-]{32,}", holds=_is_mixed),
    _Rule("a Google API key", begins="AIza", form="[0-9A-Za-z_-]{35}"),
    _Rule("a Google API key", begins="GOCSPX-", form="[A-Za-z0-9_-]{28}"),
    _Rule("a Google API key", ("ya29.",), r"ya29\.[A-Za-z0-9_-]{60,}"),
    _Rule("an npm token", ("npm_", "_authToken"), scanner="npm:NpmDetector"),
    _Rule("a PyPI token", begins="pypi-A", form="[A-Za-z0-9_-]{60,}"),
    _Rule(
        "a private key",
        ("PRIVATE KEY",),
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
        r"((?:[\s│|>]|\\[nr]|[A-Za-z-]+: [^\n\\]*)*[A-Za-z0-9+/]{16,}[A-Za-z0-9+/=\s│|>\\]*"
        r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)?)",
    ),
    _Rule("a JSON web token", ("eyJ",), scanner="jwt:JwtTokenDetector", holds=_is_jwt),
    _Rule(
        "a password in an address",
        ("://",),
        r"://[^\s:/?#\[\]@\"'<>]{0,256}:([^\s/?#\[\]@\"'<>]{3,256})@",
        holds=_is_no_placeholder,
    ),
    _Rule("an Azure key", ("AccountKey=", "AccessKey="), "(?:Account|Access)Key=([A-Za-z0-9+/]{43,88}={1,2})"),
    _Rule(
        "an Azure key", ("Q~",), r"(?<![A-Za-z0-9_~.-])[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}(?![A-Za-z0-9_~-])"
    ),
    _Rule("a Twilio key", begins="SK", form="[0-9a-f]{32}(?![A-Za-z0-9])"),
    _Rule("a SendGrid key", ("SG.",), scanner="sendgrid:SendGridDetector"),
    _Rule("a Mailchimp key", ("-us",), r"(?<![A-Za-z0-9])[0-9a-f]{32}-us\d{1,2}(?![A-Za-z0-9-])"),
    _Rule("a Square key", ("sq0csp-",), scanner="square_oauth:SquareOAuthDetector"),
    _Rule("a Heroku key", begins="HRKU-", form="[A-Za-z0-9_-]{36,}"),
    _Rule(
        "a Heroku key",
        ("heroku", "HEROKU", "Heroku"),
        r"(?i:heroku)[^\n]{0,40}?\b([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b",
    ),
    _Rule("a Telegram token", (":AA",), r"(?<!\d)\d{8,10}:AA[0-9A-Za-z_-]{33}(?![0-9A-Za-z_-])"),
    _Rule(
        "a Discord token", (".",), r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}", holds=_is_bot
    ),
    _Rule("a Hugging Face token", begins="hf_", form="[A-Za-z]{34}(?![A-Za-z0-9_])"),
    _Rule("a DigitalOcean token", ("_v1_",), begins="do", form="[opr]_v1_[0-9a-f]{64}"),
    _Rule("a token of Torch's server", begins="torch_", form="(?:own|[0-9a-f]{8})_[A-Za-z0-9_-]{43}"),
)
"""Every form that counts as a secret."""
_HINTS = tuple((hint, rule) for rule in RULES for hint in rule.hints or (rule.begins,))

_own: dict[str, str] = {}


def protect(*secrets: str, what: str = "a secret of Torch's own") -> None:
    """From now on, none of these exact values stands in what this process keeps or shows.

    One that is an ordinary word is not looked for: it would be found where it is none.
    """
    _own.update((secret, what) for secret in secrets if len(secret) >= _SHORTEST and _is_no_placeholder(secret))
    _is_clean.cache_clear()


def protect_files(*files: Path) -> None:
    """:func:`protect` what these files hold, those that exist and can be read."""
    for file in files:
        with suppress(OSError):
            protect(file.read_text().strip())


def secrets_in(text: str) -> list[Secret]:
    """Every secret in the text, in their order; where two overlap, they count as one."""
    if len(text) < _SHORTEST:
        return []
    likely = {rule for hint, rule in _HINTS if hint in text}
    found = sorted((*_own_in(text), *(secret for rule in likely for secret in rule.find(text))))
    apart: list[Secret] = []
    for secret in found:
        if apart and secret.start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(apart[-1].end, secret.end))
        else:
            apart.append(secret)
    return apart


def redacted(text: str) -> str:
    """The text with ``[redacted: …]`` in the place of each secret; the same text if it holds none."""
    if len(text) <= _SHORT and _is_clean(text):
        return text
    secrets = secrets_in(text)
    if not secrets:
        return text
    parts, at = [], 0
    for secret in secrets:
        parts += [text[at : secret.start], f"[redacted: {secret.what}]"]
        at = secret.end
    return "".join([*parts, text[at:]])


@lru_cache(maxsize=4096)
def _is_clean(text: str) -> bool:
    """Whether it holds no secret. Names, roles and states come again and again."""
    return not secrets_in(text)


def redacted_json(value: Any) -> Any:
    """The JSON value with :func:`redacted` texts; names are left as they are."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: redacted_json(one) for name, one in value.items()}
    return [redacted_json(one) for one in value] if isinstance(value, list | tuple) else value


def _own_in(text: str) -> Iterable[Secret]:
    for secret, what in list(_own.items()):
        start = text.find(secret)
        while start >= 0:
            yield Secret(start, start + len(secret), what)
            start = text.find(secret, start + len(secret))
