"""What counts as a secret in a text, and what does not."""

from __future__ import annotations

import base64
import json
import random
import string
import time
import uuid
from hashlib import sha1, sha256, sha512

import pytest

from torch_tasks.redaction import protect, redacted, redacted_json, secrets_in

WORD = string.ascii_letters + string.digits
URL_SAFE = WORD + "-_"
HEX = "0123456789abcdef"
_dice = random.Random(17)


def drawn(length: int, of: str = WORD) -> str:
    return "".join(_dice.choice(of) for _ in range(length))


def coded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


# No key stands here as it is written in its place: this file must pass the scanners of others, too.
KINDS = {
    "AWS, the id": "AKIA" + drawn(16, string.ascii_uppercase + "234567"),
    "AWS, the secret": "1aB" + drawn(37),
    "GitHub, classic": "ghp_" + drawn(36),
    "GitHub, fine-grained": "github_pat_" + drawn(22) + "_" + drawn(59),
    "GitLab": "glpat-" + drawn(20),
    "Slack": "xoxb-" + drawn(12, string.digits) + "-" + drawn(13, string.digits) + "-" + drawn(24, WORD.lower()),
    "Stripe": "sk_live_" + drawn(24),
    "OpenAI": "sk-proj-" + drawn(74, URL_SAFE) + "T3BlbkFJ" + drawn(74, URL_SAFE),
    "Anthropic": "sk-ant-api03-" + drawn(93, URL_SAFE) + "AA",
    "Google": "AIza" + drawn(35, URL_SAFE),
    "npm": "npm_" + drawn(36),
    "PyPI": "pypi-AgEIcHlwaS5vcmc" + drawn(120, URL_SAFE),
    "private key": "\n".join(["b3BlbnNzaC1rZXktdjEA" + drawn(50), *(drawn(70, WORD + "+/") for _ in range(4))]),
    "JSON web token": f"{coded({'alg': 'HS256'})}.{coded({'sub': 'dev-1', 'iat': 1516239022})}.{drawn(43, URL_SAFE)}",
    "basic auth": drawn(14),
    "Azure": drawn(86, WORD + "+/") + "==",
    "Twilio": "SK" + drawn(32, HEX),
    "SendGrid": "SG." + drawn(22, URL_SAFE) + "." + drawn(43, URL_SAFE),
    "Heroku": "HRKU-AA" + drawn(58, URL_SAFE),
    "Telegram": drawn(10, "123456789") + ":AA" + drawn(33, URL_SAFE),
    "Discord": coded(int("1" + drawn(17, string.digits)))[:24] + "." + drawn(6) + "." + drawn(27, URL_SAFE),
    "Hugging Face": "hf_" + drawn(34, string.ascii_letters),
    "DigitalOcean": "dop_v1_" + drawn(64, HEX),
    "Mailchimp": drawn(32, HEX) + "-us12",
    "Torch's server": f"torch_{drawn(8, HEX)}_{drawn(43, URL_SAFE)}",
}
AROUND = {
    "AWS, the secret": "aws_secret_access_key = {}",
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----",
    "basic auth": "https://bob:{}@registry.example/simple",
    "Azure": "DefaultEndpointsProtocol=https;AccountName=x;AccountKey={};EndpointSuffix=core.windows.net",
}
WAYS = {
    "a shell's assignment": "$ export KEY={}\n$",
    "JSON": '{{"key": "{}", "next": 1}}',
    "a sentence": "the key is {}, keep it.",
    "a frame on a screen": "│ {} │\n╰────╯",
    "alone": "{}",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_of_each_kind_is_gone_and_what_stands_around_it_stays(kind: str, way: str) -> None:
    secret = KINDS[kind]
    before, after = "before line\n", "\nafter line"
    text = before + WAYS[way].format(AROUND.get(kind, "{}").format(secret)) + after
    shown = redacted(text)
    assert secret not in shown
    assert not any(line in shown for line in secret.splitlines() if len(line) > 20)
    assert "[redacted: " in shown
    assert shown.startswith(before)
    assert shown.endswith(after)
    assert redacted(shown) == shown


ORDINARY = {
    "a task's id": f"task {uuid.uuid4().hex} succeeded on developer-1",
    "ids of a fleet": "run-2026-11-29_developer-1.retry.3 torch.run nova:torch:task:0f3a feature/" + uuid.uuid4().hex,
    "a UUID": f"request {uuid.uuid4()} took 3 ms",
    "a commit": f"commit {sha1(b'a').hexdigest()}\nindex 0f3a1b2..4c5d6e7 100644",
    "a commit that rotates a key": f"aws: rotate the key, see {sha1(b'b').hexdigest()}",
    "digests": f"sha256:{sha256(b'a').hexdigest()} sha512-{base64.b64encode(sha512(b'a').digest()).decode()}",
    "a path with aws and key": "aws/keys/of/the/Region2/and/some/more/folders/Readme/there",
    "an address without a password": "http://user@host:8080/x?a=b@c git@github.com:org/repo.git ssh://git@host:22/x",
    "an address in a template": 'f"redis://{user}:{password}@{host}" postgres://$USER:$PASS@db https://u:<token>@h',
    "an address in an example": "postgres://postgres:postgres@localhost:5432/app redis://:***@host amqp://guest:guest@h",
    "a public key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + drawn(43) + " dev@host",
    "a certificate": f"-----BEGIN CERTIFICATE-----\n{drawn(64)}\n{drawn(64)}\n-----END CERTIFICATE-----",
    "a check for private keys": 'if "-----BEGIN RSA PRIVATE KEY-----" in text:\n    raise Refused("a private key")',
    "classes of a stylesheet": ".sk-loading-indicator-with-a-very-long-name-indeed { color: red }",
    "a dotted name": "NotificationServiceManager1.handle.on_something_that_is_rather_long",
    "environment of npm": "npm_config_registry=http://127.0.0.1 npm_package_dependencies_typescript_version",
    "a picture": "data:image/png;base64,iVBORw0KGgo" + drawn(400, WORD + "+/") + "==",
    "a word with eyJ": "keyJustice.prototype eyJ eyJ.abc.def",
    "words of prose": "ASIA and AKIA, aws and its keys: a token is no secret if it is none; the password is asked for.",
    "variables": 'password = os.environ["PASSWORD"]; api_key: str = settings.api_key; token=$(cat token)',
    "times and sizes": "12:30:45 2026-11-29T19:00:00+00:00 10.0.0.1:6379 1234567890:queue 1,048,576 bytes",
    "a branch and a wheel": "hf_transfer-0.1.9 torch_tasks/workers/host/attempt_end.py",
    "what was redacted": "export KEY=[redacted: a GitHub token] https://bob:[redacted: a password in an address]@host",
}


@pytest.mark.parametrize("what", ORDINARY)
def test_ordinary_text_is_left_as_it_is(what: str) -> None:
    assert [ORDINARY[what][secret.start : secret.end] for secret in secrets_in(ORDINARY[what])] == []
    assert redacted(ORDINARY[what]) is ORDINARY[what]


def test_the_values_of_torchs_own_secrets_are_gone_whatever_form_they_have() -> None:
    protect(secret := drawn(24, HEX), "short", "password")
    assert redacted(f"AUTH {secret}{secret} and short password") == (
        "AUTH [redacted: a secret of Torch's own][redacted: a secret of Torch's own] and short password"
    )


def test_json_keeps_its_shape_and_its_names() -> None:
    token = KINDS["GitHub, classic"]
    assert redacted_json({token: [1, None, {"a": f"x {token}"}], "b": True}) == {
        token: [1, None, {"a": "x [redacted: a GitHub token]"}],
        "b": True,
    }


def test_secrets_that_stand_together_are_each_gone() -> None:
    text = "\n".join(AROUND.get(kind, "{}").format(secret) for kind, secret in KINDS.items())
    shown = redacted(text)
    assert not [kind for kind, secret in KINDS.items() if secret in shown]


@pytest.mark.parametrize(
    "unit", ["a://b:", "-----BEGIN PRIVATE KEY-----\n", "AccountKey=" + "A" * 80, "eyJ.", "xoxb-1-", "heroku "]
)
def test_a_text_made_to_cost_time_costs_little(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    began = time.process_time()
    redacted(text)
    assert time.process_time() - began < 2
