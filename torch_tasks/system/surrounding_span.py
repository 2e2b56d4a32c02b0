"""Under which span of its own, or of who started it, a process does something."""

from __future__ import annotations

import os
import sys

from torch_tasks.model.traceparent import HEADER, TraceParent


def surrounding_span() -> str | None:
    """The present span of a program that uses OpenTelemetry, else the one in the environment, as a ``traceparent``.

    OpenTelemetry is not loaded for that: a program that uses it has loaded it.
    """
    if api := sys.modules.get("opentelemetry.trace"):
        context = api.get_current_span().get_span_context()
        if context.is_valid:
            return str(TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}"))
    known = os.environ.get(HEADER.upper())
    return known if TraceParent.read(known) else None
