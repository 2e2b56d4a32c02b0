"""What a user may set of the server (``torch-tasks serve``), and of the people who come in there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings

from torch_tasks.model.limits import Bytes
from torch_tasks.model.reader import LIMIT_BYTES

Finite = Annotated[float, Field(allow_inf_nan=False)]
ExpandedPath = Annotated[Path, BeforeValidator(lambda value: Path(str(value)).expanduser().absolute())]


class ServerSettings(BaseSettings):
    """The part of the settings that is the server's."""

    serve: bool = Field(True, description="Whether `up` runs this machine's server, too; see docs/server.md.")
    server_host: str = Field(
        "127.0.0.1", description="The address at which this machine's server listens; see docs/server.md."
    )
    server_port: int = Field(5556, ge=0, le=65535, description="Its port; if `up` finds it in use, a free one.")
    server_names: tuple[str, ...] = Field(
        (), description='The names under which it is reached besides its address, as `["torch.example"]`.'
    )
    server_certificate: ExpandedPath | None = Field(
        None, description="The file of its certificate with the chain (PEM); then it speaks https alone."
    )
    server_key: ExpandedPath | None = Field(None, description="The file of the certificate's key, if it has its own.")
    server_public_url: str | None = Field(
        None,
        description="The address at which people reach it through a proxy, as `https://torch.example`; a login comes "
        "back there. Unset: the one that they asked.",
    )
    server_session_seconds: Finite = Field(
        8 * 3600.0, gt=0, description="After so long a person who logged in has to do it again."
    )
    person_away_seconds: Finite = Field(
        90.0,
        gt=0,
        description="So long after the last sign of the person who had taken a terminal over it is Torch's again. A "
        "window of the console gives one three times as often, but one that is not seen only once a minute.",
    )
    oidc_issuer: str | None = Field(
        None,
        description="The OpenID provider at which people log in, as `https://login.example/realms/dev`; "
        "see docs/server.md.",
    )
    oidc_client_id: str | None = Field(None, description="What this provider calls the server.")
    oidc_client_secret: SecretStr | None = Field(None, description="The secret that it has with the provider, if any.")
    oidc_client_secret_file: ExpandedPath | None = Field(None, description="A file with that secret instead.")
    oidc_scopes: tuple[str, ...] = Field(
        ("openid", "profile", "email"),
        description='What is asked of the provider; `"offline_access"` has most of them give what a login is renewed '
        "with.",
    )
    oidc_role_claim: str = Field(
        "groups",
        description="What the provider says of a person that gives their role; `realm_access.roles` goes deeper.",
    )
    oidc_viewers: tuple[str, ...] = Field(
        (), description='The values of it that make a viewer, as `["staff"]`. An account alone opens nothing.'
    )
    oidc_operators: tuple[str, ...] = Field((), description="The values of it that make an operator.")
    oidc_refresh_seconds: Finite = Field(
        600.0, gt=0, description="How often the provider is asked again whether a person still has their role."
    )
    server_request_bytes: Bytes = Field(
        LIMIT_BYTES,
        gt=0,
        description="A longer request is refused.",
        json_schema_extra={"default": "16M"},
    )
    server_slow_seconds: Finite = Field(
        10.0, gt=0, description="A client that takes longer to send a request, or to take what it is sent, is cut off."
    )
    server_requests: int = Field(
        2000, gt=0, description="How many requests it serves at a time, with those that wait; further ones are refused."
    )
