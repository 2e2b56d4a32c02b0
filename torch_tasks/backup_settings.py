"""What a user may set of the backups that a machine takes by itself."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

from torch_tasks.server_settings import ExpandedPath, Finite


class BackupSettings(BaseSettings):
    """The part of the settings that is about standing backups."""

    backup_dir: ExpandedPath | None = Field(
        None,
        description="The folder into which this machine's node worker backs the fleet up by itself; "
        "see docs/backup.md. Unset: it does not.",
    )
    backup_seconds: Finite = Field(3600.0, ge=60, description="How often it does.")
    backup_keep: int = Field(24, ge=1, description="How many of these backups are kept, the latest.")
    backup_passphrase_file: ExpandedPath | None = Field(
        None,
        description="A file whose first line is the passphrase with which they have this machine's keys. "
        "Unset, as TORCH_BACKUP_RECIPIENTS: they have none.",
    )
    backup_recipients: tuple[str, ...] = Field(
        (),
        description="Public keys of age (`age1…`) or SSH, as a JSON list: they have this machine's keys, which only "
        "the owners of these can open; takes the place of the passphrase.",
    )
