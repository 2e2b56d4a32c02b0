"""``config/releases.toml``: the releases of each kind's program with which the repository's own tests passed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache

from pydantic import Field, RootModel

from torch_tasks.config_files import shipped_config
from torch_tasks.toml_config import read_config
from torch_tasks.workers.programs.config import Section, lowest_shipped


class CertifiedRelease(Section):
    """One release that passed, and when."""

    release: str
    date: date


class KindReleases(Section):
    """Where a kind's program comes from, and its releases that passed."""

    npm: str | None = None
    """The package's name there; unset: it comes from the other place."""
    pypi: str | None = None
    certified: tuple[CertifiedRelease, ...] = Field(min_length=1)
    """The newest first."""


class _Releases(RootModel[Mapping[str, KindReleases]]):
    """The whole file."""


@cache
def all_releases() -> Mapping[str, KindReleases]:
    """The releases of every kind whose program Torch is tested with."""
    return read_config(shipped_config() / "releases.toml", _Releases).root


def certified_releases(kind: str) -> tuple[CertifiedRelease, ...]:
    """The certified releases of this kind's program, the newest first; none if Torch does not know the program.

    A kind that is laid over one of Torch's has its releases; a kind whose file is wholly the user's has none.
    """
    shipped = lowest_shipped(kind)
    releases = all_releases().get(shipped) if shipped else None
    return releases.certified if releases else ()


def is_certified(kind: str, release: str) -> bool:
    """Whether the repository's tests passed with this release of the kind's program."""
    return release in (certified.release for certified in certified_releases(kind))
