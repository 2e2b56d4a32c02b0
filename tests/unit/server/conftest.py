"""A provider for people, and a server that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import Site
from clients import read_settings_anew
from fakes.openid import FakeProvider, provided


@pytest.fixture(scope="module")
def one_provider() -> Iterator[FakeProvider]:
    with provided() as provider:
        yield provider


@pytest.fixture
def provider(one_provider: FakeProvider) -> FakeProvider:
    """The provider, as honest as it was in the beginning."""
    honest = vars(FakeProvider(one_provider.issuer, key=one_provider.key))
    vars(one_provider).clear()
    vars(one_provider).update(honest)
    return one_provider


@pytest.fixture
def site(provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    yield Site(provider, tmp_path, monkeypatch)
    monkeypatch.undo()
    read_settings_anew()
