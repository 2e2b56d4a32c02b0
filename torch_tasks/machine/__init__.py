"""The processes that belong to one machine: its broker, its workers, beat and Flower."""

from __future__ import annotations
