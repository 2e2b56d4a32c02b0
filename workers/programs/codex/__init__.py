"""Codex: the kind, and its app-server, through which it gets prompts and answers."""

from __future__ import annotations
