"""What has an agent's program send its own telemetry to the user's collector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from torch_tasks.telemetry_settings import TelemetrySettings

_HEADERS = "{headers}"


class TelemetryConfig(BaseModel):
    """A kind's table ``[telemetry]``, for users who set ``TORCH_PROGRAMS_TELEMETRY``.

    In the values, ``{endpoint}`` is the collector's address and ``{headers}`` are the headers that it wants; a variable
    for the headers is left out if it wants none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: Mapping[str, str] = {}
    settings: Mapping[str, Any] = {}
    """Laid over the kind's own."""

    @property
    def is_known(self) -> bool:
        """Whether the program has any."""
        return bool(self.environment or self.settings)

    def for_user(self, user: TelemetrySettings) -> Self:
        """This, for the user's collector; empty if the user does not want it."""
        if not user.programs_telemetry:
            return self.model_copy(update={"environment": {}, "settings": {}})
        headers = user.otlp_headers.get_secret_value() if user.otlp_headers else ""
        places = {"{endpoint}": (user.otlp_endpoint or "").rstrip("/"), _HEADERS: headers}
        kept = {name: text for name, text in self.environment.items() if headers or text != _HEADERS}
        return self.model_copy(
            update={"environment": _filled(kept, places), "settings": _filled(self.settings, places)}
        )


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    """The value with what stands for something in its texts replaced."""
    if isinstance(value, Mapping):
        return {name: _filled(one, places) for name, one in value.items()}
    if isinstance(value, str):
        for name, text in places.items():
            value = value.replace(name, text)
    return value
