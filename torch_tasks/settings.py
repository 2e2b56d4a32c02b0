"""Everything a user may set: from the environment (``TORCH_…``), else ``torch.toml``, else the default written here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from torch_tasks.backup_settings import BackupSettings
from torch_tasks.config_files import config_file, default_state_dir, given_by_fleet, glance_at_state_dir
from torch_tasks.errors import InvalidSettings, StateFolderUnusable
from torch_tasks.fleets_settings import FleetsSettings
from torch_tasks.model.agent import AgentSpec, each_id_once
from torch_tasks.model.broker_address import BrokerAddress, standard_url
from torch_tasks.model.broker_moves import without_made_login
from torch_tasks.model.budget import Budget
from torch_tasks.model.fields import AgentId, Role, Skills, faults
from torch_tasks.model.limits import Bytes, Limits
from torch_tasks.model.near import near
from torch_tasks.model.reader import LIMIT_BYTES
from torch_tasks.model.sandbox import BoxSettings
from torch_tasks.model.spawn import Pool
from torch_tasks.notify_settings import NotifySettings
from torch_tasks.server_settings import ExpandedPath, Finite, ServerSettings
from torch_tasks.state_folder import StateFolder
from torch_tasks.telemetry_settings import TelemetrySettings
from torch_tasks.toml_config import hint, place
from torch_tasks.workers_settings import WorkersSettings


def _default_node() -> str:
    return socket.gethostname().split(".")[0].lower() or "localhost"


PaneScope = Literal["auto", "always", "never"]
Certify = Literal["auto", "warn", "off"]
Signing = Literal["enforce", "warn", "off"]


class Settings(
    BoxSettings, TelemetrySettings, NotifySettings, BackupSettings, FleetsSettings, ServerSettings, WorkersSettings
):
    """The settings of one process; read once, never changed afterwards."""

    model_config = SettingsConfigDict(env_prefix="TORCH_", env_ignore_empty=True, extra="forbid", frozen=True)

    broker_url: SecretStr | None = Field(
        None,
        description="The broker: DragonflyDB, Valkey or Redis, as `redis://[:password@]host:port/db`, `rediss://…`, "
        "`sentinel://[:password@]host:port;host2:port/name` (or `sentinels://…` with TLS) or "
        "`unix://[:password@]/path/to/socket`. Unset: the broker that `torch-tasks up` keeps for this machine.",
    )
    broker_sentinel_password: SecretStr | None = Field(
        None, description="The password that the Sentinels of a `sentinel://` broker want, if they want one."
    )
    state_dir: ExpandedPath = Field(
        default_factory=default_state_dir,
        description="The folder of this machine's logs, journals, transcripts, answers, and embedded broker.",
        json_schema_extra={"default": "$XDG_STATE_HOME/torch, else ~/.local/state/torch"},
    )
    node: AgentId = Field(
        default_factory=_default_node,
        description="The name of this machine in the fleet.",
        json_schema_extra={"default": "the host name"},
    )
    keys_dir: ExpandedPath | None = Field(
        None,
        description="The folder of the keys with which this machine signs, and of the roots that it trusts. Machines "
        "that share it are one fleet, as are those that joined (`torch-tasks node join`).",
        json_schema_extra={"default": "`keys` in the state folder"},
    )
    signing: Signing = Field(
        "enforce",
        description="What is done about work that was not signed by this fleet, or that was changed since. `enforce`: "
        "it is refused. `warn`: it is done and logged. `off`: nothing is signed and nothing is looked at.",
    )
    audit: Literal["acts", "all", "off"] = Field(
        "acts",
        description="What the [audit](security.md#the-audit) of this machine notes: `acts` (what changes something, "
        "and every refusal), `all` (reading, too) or `off`.",
    )
    audit_days: Finite = Field(365.0, gt=0, description="How long the audit is kept.")
    audit_file_bytes: int = Field(8 << 20, ge=4096, description="A longer file of the audit is followed by another.")
    audit_head_seconds: Finite = Field(
        10.0, gt=0, description="How often a node signs how far its audit is, for the broker and the other nodes."
    )
    broker_memory: Bytes = Field(
        1 << 30,
        ge=16 << 20,
        description="The most memory that this machine's own broker may use, as 512M or 2G. At 90 % new tasks are "
        "refused (`BrokerFull`); what was accepted stays.",
        json_schema_extra={"default": "1G"},
    )
    broker_ca: ExpandedPath | None = Field(
        None, description="The file of the authority (PEM) of a `rediss://` broker. Unset: those of this system."
    )
    broker_certificate: ExpandedPath | None = Field(
        None, description="The file of this machine's certificate (PEM), if the broker wants one."
    )
    broker_key: ExpandedPath | None = Field(None, description="The file of that certificate's key.")
    broker_check_hostname: bool = Field(True, description="Whether the broker's certificate must be for its host.")
    broker_connect_seconds: Finite = Field(
        5.0, gt=0, description="How long a process waits for a broker, or a server, that is away."
    )
    lease_seconds: Finite = Field(
        8.0, gt=0, description="After so long without a renewal, a delivery is given to another worker."
    )
    delivery_limit: int = Field(
        10, gt=0, description="A message that was lost with its worker this often goes to the dead letters."
    )
    recovery_seconds: Finite = Field(
        3.0,
        gt=0,
        description="How long no agent takes tasks after the broker was restarted, "
        "so that live workers can put back what it accepted, what they hold and what they have finished.",
    )
    takeover_seconds: Finite = Field(
        10.0, gt=0, description="After so long without an agent's and its node's heartbeats, another agent takes over."
    )
    detached_seconds: Finite = Field(
        300.0,
        gt=0,
        description="How long the task of an agent whose worker was stopped waits for its next worker, "
        "before another agent takes it over.",
    )
    handoff_seconds: Finite = Field(
        30.0, gt=0, description="How often a worker notes in a running task's record what a successor should know."
    )
    ledger: bool = Field(
        True, description="Keep what is enqueued here on disk, too, to put it back if the broker loses it."
    )
    heartbeat_seconds: Finite = Field(5.0, gt=0, description="How often an agent worker sends a heartbeat.")
    offline_seconds: Finite = Field(
        15.0, gt=0, description="After so long without a heartbeat, an agent counts as offline."
    )
    soft_pin_seconds: Finite = Field(
        10.0,
        gt=0,
        description="How long a task waits for the agent that it was assigned to, before any able agent may take it.",
    )
    events_heartbeat_seconds: int = Field(30, gt=0, description="How often a worker sends a heartbeat to Flower.")
    result_days: Finite = Field(7.0, gt=0, description="How long ended tasks, their results and answers are kept.")
    prompt_limit_bytes: int = Field(1 << 20, gt=0, description="A longer prompt is refused.")
    task_limit_bytes: int = Field(
        4 << 20, gt=0, description="A task that is longer as a whole, with its context and metadata, is refused."
    )
    wire_limit_bytes: int = Field(
        LIMIT_BYTES,
        gt=0,
        description="Nothing longer is published, and what is longer on the broker goes to the dead letters unread.",
    )
    refused_limit: int = Field(
        1000,
        gt=0,
        description="How many dead letters that could not be read are kept, the latest; tasks' own dead letters stay.",
    )
    refused_bytes: Bytes = Field(
        64 << 20,
        gt=0,
        description="How much memory of the broker they may take together.",
        json_schema_extra={"default": "64M"},
    )
    message_limit_bytes: int = Field(1 << 20, gt=0, description="A longer message is refused.")
    inbox_limit: int = Field(
        1000, gt=0, description="How many messages may wait for one receiver; further ones are refused."
    )
    inbox_reserve_percent: int = Field(
        10,
        ge=0,
        lt=100,
        description="How much of that room is left to emergencies and to what people send, whatever agents send.",
    )
    unread_per_sender: int = Field(
        100,
        ge=10,
        description="How many messages of one agent may wait for one receiver, and a tenth as many emergencies.",
    )
    messages_per_minute: int = Field(
        300, gt=0, description="How many messages one agent may send within a minute, and as many emergencies."
    )
    broadcasts_per_minute: int = Field(10, gt=0, description="How many broadcasts one sender may send within a minute.")
    message_tries: int = Field(
        3, gt=0, description="How often a message is put into a pane whose program does not take it; then it is dead."
    )
    note_limit_bytes: int = Field(2000, gt=0, description="A longer note about a project is refused.")
    notes_limit: int = Field(500, gt=0, description="So many notes about one project are kept, the latest.")
    note_days: Finite = Field(90.0, gt=0, description="How long a note about a project is kept.")
    briefing_notes_bytes: int = Field(
        4000, ge=0, description="How much of a project's latest notes a coding agent's briefing holds; 0: none."
    )
    claim_seconds: Finite = Field(1800.0, gt=0, description="How long a claim made outside a task holds.")
    beat_lease_seconds: Finite = Field(
        5.0, gt=0, description="After so long without a sign of the leading beat, another one leads."
    )
    misfire_seconds: Finite = Field(
        60.0, ge=0, description="A check-in later than this has missed its slot: its misfire policy decides."
    )
    answer_limit_bytes: int = Field(
        64 << 10, ge=1024, description="A longer answer keeps its head and tail in the record; the file keeps it all."
    )
    transcript_limit_bytes: int = Field(
        64 << 20, gt=0, description="A longer transcript of a pane is rotated; one older part is kept."
    )
    desk_seconds: Finite = Field(
        60.0,
        ge=0,
        description="How long a command in an agent's pane waits for the agent's worker while that is started again.",
    )
    agent_start_seconds: Finite = Field(60.0, gt=0, description="How long a program may show nothing at its start.")
    pane_environment: tuple[str, ...] = Field(
        (),
        description="What an agent's pane gets of its worker's environment beside the usual variables and those that "
        'its kind names, as `["GH_TOKEN", "MY_*"]`: see docs/agents.md. Never what begins with `TORCH_` or `CELERY_`.',
    )
    pane_scope: PaneScope = Field(
        "auto",
        description="Whether systemd gives each agent's terminal a scope of its own, which outlives the worker's unit: "
        "`auto` where the worker runs under systemd and it can be had, `always`, `never`.",
    )
    agent_memory: Bytes | None = Field(
        None, description="The most memory of an agent's terminal, as `2G`, unless its declaration says."
    )
    agent_cpu: Finite | None = Field(
        None, gt=0, description="The same for processors: `1.5`. Enforced where the kernel can, see docs/control.md."
    )
    agent_processes: int | None = Field(None, ge=1, description="The same for the number of processes.")
    cgroup: ExpandedPath | None = Field(
        None,
        description="A folder of cgroup v2 that this user may write, with the controllers memory, cpu and pids: "
        "each agent that has limits and no scope gets a group of its own there.",
    )
    certify: Certify = Field(
        "auto",
        description="What is done about a program whose release is not certified. `auto`: where its kind was tried "
        "once by `torch-tasks certify`, a release that is new since then is tried before agents start with it; they "
        "stay down while it is broken; elsewhere as `warn`: it is only said. `off`: it is not even looked at.",
    )
    interrupt_seconds: Finite = Field(
        3.0, gt=0, description="How long an interrupted program may take to become ready before it is restarted."
    )
    check_rounds: int = Field(
        2, ge=0, description="How often a failed check goes back to a coding agent, unless the task says."
    )
    stalled_seconds: Finite = Field(
        1800.0, ge=0, description="A working agent that shows nothing new for this long is interrupted; 0: never."
    )
    account_failures: int = Field(
        3, gt=0, description="After so many overloads in a row, all agents that share the account pause."
    )
    account_pause_seconds: Finite = Field(
        300.0, gt=0, description="How long they pause, also after a usage limit without an end."
    )
    budgets: dict[str, Budget] = Field(
        {},
        description="What the fleet may use of an account: `calls_per_minute`, `calls_per_hour`, `calls_per_day`, "
        "`tokens_per_day`, `usd_per_day` (`[budgets.ACCOUNT]` in torch.toml, the same on each machine; here JSON).",
    )
    check_timeout_seconds: Finite = Field(600.0, gt=0, description="How long a task's check command may take.")
    max_retries: int = Field(
        2, ge=0, description="How often a task is tried again after its agent crashed, unless it says."
    )
    retry_backoff_seconds: Finite = Field(
        1.0, ge=0, description="The pause before the first retry; each further one is about twice as long."
    )
    retry_backoff_limit_seconds: Finite = Field(300.0, ge=0, description="The longest such pause.")
    git_seconds: Finite = Field(
        60.0, gt=0, description="How often a node worker looks at its agents' git trees, if git.toml says so."
    )
    flower_port: int = Field(
        5555, ge=0, le=65535, description="Flower's port on loopback; if it is in use, a free one."
    )
    server: str | None = Field(
        None,
        description="The address of a server (`torch-tasks serve`) through which commands and `Torch()` reach the "
        "fleet, as `https://torch.example`; as `--server`. Unset, or `none`: they reach the broker themselves.",
    )
    token_file: ExpandedPath | None = Field(
        None,
        description="A file with the token for that server. Unset: for the server of this state folder its own token.",
    )
    agents: Annotated[tuple[AgentSpec, ...], AfterValidator(each_id_once)] = Field(
        (), description="The agents that this machine's node worker keeps alive (`[[agents]]` tables in torch.toml)."
    )
    pools: tuple[Pool, ...] = Field(
        (),
        description="How many agents of which kind the fleet keeps (`[[pools]]` tables in torch.toml: role, skills, "
        "kind, min, max, labels, workdir).",
    )
    scale_seconds: Finite = Field(
        10.0, gt=0, description="How often the fleet decides whether its pools need more agents."
    )
    scale_wait_seconds: Finite = Field(
        5.0, ge=0, description="A task that has waited for less makes no pool grow, unless no agent can do it."
    )
    scale_backlog_seconds: Finite = Field(
        60.0, gt=0, description="A pool grows until its waiting tasks can be done in this time."
    )
    scale_cooldown_seconds: Finite = Field(
        30.0, ge=0, description="How long a pool that has grown waits before it grows again."
    )
    scale_task_seconds: Finite = Field(
        60.0, gt=0, description="How long a task is assumed to last while none of its role has ended."
    )
    node_labels: Skills = Field((), description='What this machine has that an agent may ask for, as `["gpu"]`.')
    node_address: str | None = Field(
        None, description="Where people reach this machine. Unset: its address towards the broker."
    )
    agents_limit: int = Field(200, gt=0, description="How many agents the whole fleet may have.")
    agents_per_node: int = Field(32, ge=0, description="How many agents this machine may have.")
    agents_per_role: int = Field(64, gt=0, description="How many agents of one role the fleet may have.")
    role_limits: dict[Role, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description='The same for single roles, as `{"qa": 2}`.',
        json_schema_extra={"default": "unset"},
    )
    agents_per_parent: int = Field(4, ge=0, description="How many living agents one agent may have spawned.")
    agent_memory_bytes: int = Field(
        64 << 20, ge=0, description="No agent is spawned on a node with less free memory than this."
    )
    spawn_seconds: Finite = Field(120.0, gt=0, description="How long a spawned agent may take to become ready.")
    temporary_idle_seconds: Finite = Field(
        300.0, gt=0, description="A temporary agent that was idle for this long retires."
    )

    @field_validator("broker_url")
    @classmethod
    def _standard_url(cls, value: SecretStr | None) -> SecretStr | None:
        return value and SecretStr(standard_url(value.get_secret_value()))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = config_file("torch.toml")
        from_toml = (TomlConfigSettingsSource(settings_cls, toml),) if toml else ()
        return (init_settings, env_settings, *from_toml, InitSettingsSource(settings_cls, given_by_fleet()))

    def model_post_init(self, context: Any, /) -> None:
        if self.offline_seconds <= self.heartbeat_seconds:
            raise InvalidSettings(
                f"TORCH_OFFLINE_SECONDS ({self.offline_seconds:g}) must be longer than "
                f"TORCH_HEARTBEAT_SECONDS ({self.heartbeat_seconds:g}), or live agents would count as offline"
            )

    def broker(self) -> BrokerAddress:
        """The broker's address and its source, read each time; without a login where Torch has made users."""
        if given := self.given_broker():
            return without_made_login(given, self.state.broker_logins, self.state.broker_moved)
        try:
            return BrokerAddress.model_validate_json(self.state.broker_address.read_bytes())
        except FileNotFoundError:
            return BrokerAddress.of_socket(self.state.broker_socket, "nothing")
        except OSError as error:
            raise StateFolderUnusable(
                f"cannot read {self.state.broker_address}: {error.strerror}. Make it readable, or set TORCH_STATE_DIR"
            ) from None

    def given_broker(self) -> BrokerAddress | None:
        """The broker that the user has named, with the login that stands in its address."""
        return BrokerAddress(url=self.broker_url, source="TORCH_BROKER_URL") if self.broker_url else None

    @property
    def agent_limits(self) -> Limits:
        """The limits of agents whose declaration sets none."""
        return Limits(memory=self.agent_memory, cpu=self.agent_cpu, processes=self.agent_processes)

    @cached_property
    def state(self) -> StateFolder:
        return StateFolder(self.state_dir)

    @property
    def keys_folder(self) -> Path:
        return self.keys_dir or self.state.keys


def settings_for_ending() -> Settings:
    """The defaults, with the state folder that settings name which cannot be used: enough to end what runs there."""
    return Settings.model_construct(state_dir=glance_at_state_dir())


def _faults(error: ValidationError) -> Iterator[str]:
    """What is wrong with the settings, each fault by its variable, or by the file's line and key."""
    file = config_file("torch.toml")
    for loc, words in faults(error):
        variable = f"TORCH_{loc[0]}".upper() if loc else ""
        if file and loc and not os.environ.get(variable):
            yield place(file, file.read_text(), loc) + words + hint(Settings, loc, words)
        else:
            yield f"{'.'.join((variable, *map(str, loc[1:])))}: {words}"


#: Without ``TORCH_``: what an agent's program finds in its environment, and what the files in compose/ name.
_SET_BY_TORCH = frozenset(
    {"CONFIG_DIR", "AGENT_ID", "DESK", "TASK_ID", "INCARNATION", "CONTEXT", "ANSWER", "IMAGE", "MARK"}
)
_BEGINNINGS_SET_BY_TORCH = ("NOTIFY_", "TEST_")
_ALIKE = 0.75


def unknown_variables() -> dict[str, list[str]]:
    """The variables of the environment that look like settings and are none, each with the names near it.

    Those without a near name may be another program's: PyTorch's begin with ``TORCH_``, too.
    """
    known = {name.upper() for name in Settings.model_fields} | _SET_BY_TORCH
    given = sorted(name.removeprefix("TORCH_") for name in os.environ if name.startswith("TORCH_"))
    unknown = [name for name in given if name not in known and not name.startswith(_BEGINNINGS_SET_BY_TORCH)]
    return {f"TORCH_{name}": [f"TORCH_{one}" for one in near(name, known, _ALIKE)] for name in unknown}


@cache
def settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        raise InvalidSettings(f"cannot use these settings: {'; '.join(_faults(error))}") from None
    except SettingsError as error:  # a variable is not the JSON that it should be
        raise InvalidSettings(f"cannot use these settings: {error}. Tables, as TORCH_AGENTS, must be JSON") from None
    except ValueError as error:  # TOML that does not parse
        raise InvalidSettings(f"cannot read {config_file('torch.toml')}: {error}") from None
