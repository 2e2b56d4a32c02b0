"""What a user may set of how the fleet is seen by other programs: Prometheus, and collectors of OpenTelemetry's."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

LogForm = Literal["people", "json"]


class TelemetrySettings(BaseSettings):
    """The part of the settings that is about metrics and spans."""

    metrics: bool = Field(
        True, description="Whether node workers and beats show metrics and how they are: docs/metrics.md."
    )
    metrics_host: str = Field("127.0.0.1", description="The address at which they do; whoever reaches it may read.")
    metrics_port: int = Field(5557, ge=0, le=65535, description="A node worker's port; if it is in use, a free one.")
    metrics_beat_port: int = Field(5558, ge=0, le=65535, description="A beat's port; if it is in use, a free one.")
    log_format: LogForm = Field(
        "people",
        description="How Torch's processes log: lines for `people`, or `json`, an object on each line with the same "
        "fields from each process: docs/operating.md.",
    )
    log_limit_bytes: int = Field(
        10_000_000,
        ge=1000,
        description="How large a log in the state folder grows before it is put aside: docs/operating.md.",
    )
    log_files_kept: int = Field(5, ge=0, le=1000, description="How many of each that were put aside are kept.")
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://",
        description="The collector of OpenTelemetry's to which the node workers send the spans of tasks, as "
        "`http://127.0.0.1:4318`: see docs/traces.md. Unset: nothing of OpenTelemetry's is loaded.",
    )
    otlp_headers: SecretStr | None = Field(
        None, description="Headers for that collector, as `name=value,name=value`: a token, mostly."
    )

    programs_telemetry: bool = Field(
        False,
        description="Whether the agents' programs send their own telemetry to that collector, too, without prompts and "
        "without what their tools read and write: docs/traces.md.",
    )

    @model_validator(mode="after")
    def _knows_the_programs_collector(self) -> Self:
        if self.programs_telemetry and not self.otlp_endpoint:
            raise ValueError("programs_telemetry needs a collector: set otlp_endpoint, as http://127.0.0.1:4318")
        return self

    @property
    def collector_place(self) -> str | None:
        """The collector's host and port, as a list of hosts names them."""
        if self.otlp_endpoint is None:
            return None
        found = urlsplit(self.otlp_endpoint)
        return f"{found.hostname}:{found.port or (443 if found.scheme == 'https' else 80)}"

    @property
    def collector_headers(self) -> dict[str, str]:
        """The headers that OpenTelemetry's collector wants."""
        pairs = (self.otlp_headers.get_secret_value() if self.otlp_headers else "").split(",")
        return {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in pairs) if value}
