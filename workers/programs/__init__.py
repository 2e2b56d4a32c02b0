"""One file per kind of agent program."""

from __future__ import annotations
