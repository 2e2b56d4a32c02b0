"""Tries an installed program against a fake model: whether all that Torch promises holds with its release."""

from __future__ import annotations
