"""Tries one kind's program in this process: ``python -m torch_tasks.workers.certify KIND FOLDER RELEASE``."""

from __future__ import annotations

import sys
from pathlib import Path

from torch_tasks.workers.certify.loopback import enter_loopback


def main(kind: str, folder: str, release: str) -> None:
    why_not = enter_loopback()  # before anything is imported that has threads
    from torch_tasks.workers.certify.trial import try_kind

    try_kind(kind, Path(folder), release, why_not)


if __name__ == "__main__":
    main(*sys.argv[1:])
