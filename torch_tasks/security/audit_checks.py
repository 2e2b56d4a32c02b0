"""Which files of this machine's audit were found good, so that a look reads only what has changed since."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path

from torch_tasks.security.audit import audit_log
from torch_tasks.settings import settings
from torch_tasks.system.chain_check import CheckedFile, CheckedLog
from torch_tasks.system.chain_lines import Head
from torch_tasks.system.files import write_private

log = logging.getLogger(__name__)


def check_audit(*, whole: bool) -> CheckedLog:
    """Read the audit: the ``whole``, or what was not found good before as it lies there now."""
    file = settings().state.audit_checked
    known = {} if whole else _read(file)
    found = audit_log().check(known)
    if found.files != known:
        try:
            write_private(file, json.dumps(found.files))
        except OSError as error:
            log.warning("the next look at the audit reads all of it again: %s", error)
    return found


def _read(file: Path) -> dict[str, CheckedFile]:
    with suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads(file.read_bytes())
        return {
            name: CheckedFile(inode, changed_ns, size, Head(*begins), Head(*ends))
            for name, (inode, changed_ns, size, begins, ends) in found.items()
        }
    return {}
