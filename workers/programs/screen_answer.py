"""The answer as it stands in the pane, for programs that tell it nowhere else."""

from __future__ import annotations

import re

from torch_tasks.workers.programs.config import AnswerConfig

_FRAME = re.compile(r"[\u2500-\u257f\u2580-\u259f]+")
_SPINNER = re.compile(r"^\s*[\u2800-\u28ff✢✳✶✻✽·*◐◓◑◒]\s.*(…|\.\.\.|\d+s)")


def answer_on(text: str, end: str, config: AnswerConfig) -> str:
    """What stands below the last line of our prompt, which ends in ``end``, without frames and spinners.

    ``text`` is all that stands above the composer; empty if the prompt is not to be seen in it.
    """
    rows = text.split("\n")
    start = _after(rows, "".join(end.split()))
    if start is None:
        return ""
    kept = [_clean(row, config) for row in rows[start:] if not _dropped(row, config)]
    lines = [line for line in kept if line is not None]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _after(rows: list[str], end: str) -> int | None:
    """The row after the last one of the prompt, which the program may have wrapped anywhere."""
    for row in range(len(rows) - 1, -1, -1):
        joined = ""
        for above in range(row, max(row - 6, -1), -1):
            joined = _FRAME.sub("", "".join(rows[above].split())) + joined
            if joined.endswith(end):
                return row + 1
            if len(joined) > 2 * len(end):
                break
    return None


def _dropped(row: str, config: AnswerConfig) -> bool:
    return bool(_SPINNER.search(row)) or any(pattern.search(row) for pattern in config.drop)


def _clean(row: str, config: AnswerConfig) -> str | None:
    plain = _FRAME.sub("", row).rstrip()
    if row.strip() and not plain.strip():  # nothing but a frame
        return None
    return config.strip.sub("", plain, count=1) if config.strip else plain
