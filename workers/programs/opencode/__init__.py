"""OpenCode: the kind, and the program's own server, through which it gets prompts and answers."""

from __future__ import annotations
