"""What each of the three settings does about signatures."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from torch_tasks.errors import BadSignature, NotSigned
from torch_tasks.settings import settings
from torch_tasks.signing.enforcement import DOUBTS, checked, seal
from torch_tasks.signing.signature import Purpose


def _set(monkeypatch: pytest.MonkeyPatch, signing: str) -> None:
    monkeypatch.setenv("TORCH_SIGNING", signing)
    settings.cache_clear()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    monkeypatch.setenv("TORCH_KEYS_DIR", str(tmp_path / "keys"))
    DOUBTS.clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def test_what_is_sealed_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, "enforce")
    signed = checked(seal(Purpose.HOLD, "stop", 60, scope="all"), Purpose.HOLD, "stop")
    assert signed
    assert signed.claims == {"scope": "all"}
    assert signed.signer.owner == "person operator"


@pytest.mark.parametrize("text", ["stop", "start"])
def test_enforced_what_is_not_signed_or_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    _set(monkeypatch, "enforce")
    with pytest.raises(NotSigned):
        checked(None, Purpose.HOLD, text)
    with pytest.raises(BadSignature):
        checked(seal(Purpose.HOLD, "pause", 60), Purpose.HOLD, text)


def test_warned_it_is_taken_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _set(monkeypatch, "warn")
    with caplog.at_level(logging.WARNING):
        assert checked(None, Purpose.HOLD, "stop") is None
    assert DOUBTS == {"NotSigned": 1}
    assert "it is not signed" in caplog.text
    assert checked(seal(Purpose.HOLD, "stop", 60), Purpose.HOLD, "stop")


def test_off_nothing_is_signed_or_looked_at_and_no_keys_are_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _set(monkeypatch, "off")
    assert seal(Purpose.HOLD, "stop", 60) is None
    assert checked("no signature", Purpose.HOLD, "stop") is None
    assert not (tmp_path / "keys").exists()
