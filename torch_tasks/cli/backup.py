"""``torch-tasks backup | restore``: the whole fleet in one file, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from torch_tasks.backup import here
from torch_tasks.backup.age import Identities, Recipients
from torch_tasks.backup.here import Only, Restoring
from torch_tasks.backup.manifest import Manifest
from torch_tasks.backup.sealing import Opener, Passphrase, Seal
from torch_tasks.backup.verifying import verified
from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json, as_table, local
from torch_tasks.cli.tables import Column
from torch_tasks.errors import BackupIncomplete, InvalidRequest
from torch_tasks.machine.agent_folder import refuse_in_pane
from torch_tasks.settings import settings
from torch_tasks.tasks import recovery

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_PASSPHRASE = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file whose first line is the passphrase of the keys, or /dev/fd/N (default: ask at the terminal).",
)
_IDENTITY = click.option(
    "--identity-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file of age-keygen or ssh-keygen whose key opens the keys, or /dev/fd/N.",
)
_WITHOUT = click.option("--without-keys", is_flag=True, help="Leave the keys and other secrets out.")
_SHOWN = 20


class _FileFirst(click.Group):
    """A word that is no command is the file of a new backup; a file that is called as a command is ``./verify``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_file = args[0] not in self.commands and not ctx.resilient_parsing
        return super().resolve_command(ctx, ["make", *args] if is_file else args)


@click.group(cls=_FileFirst, no_args_is_help=True)
def backup() -> None:
    """Back up the fleet into a file, say what is in one, and list what came after it.

    `torch-tasks backup FILE` writes one while the fleet works: what lies on the broker, what each machine has on its
    disk, and this machine's keys, sealed with a passphrase or for the owner of a key.
    """
    refuse_in_pane(settings().state, "backup")


@backup.command()
@_FILE
@_PASSPHRASE
@click.option(
    "--recipient", "recipients", multiple=True, metavar="KEY", help="Who can open the keys: age1… or an SSH key."
)
@_WITHOUT
@JSON
def make(
    file: Path, passphrase_file: Path | None, recipients: tuple[str, ...], without_keys: bool, json_wanted: bool
) -> None:
    """Write a backup; the same as `torch-tasks backup FILE`. Exit code 1: a machine is missing in it."""
    manifest = here.make_backup(file, None if without_keys else _seal(passphrase_file, recipients))
    if json_wanted:
        as_json(manifest)
    else:
        click.echo(f"{file}: {_in_words(manifest)}")
    if manifest.missing:
        raise BackupIncomplete(_missing(manifest))


@backup.command()
@_FILE
@JSON
def verify(file: Path, json_wanted: bool) -> None:
    """Read all of a backup, compare every part with its digest, and say who signed it and what is in it."""
    archive, signer = verified(file, settings())
    manifest = archive.manifest
    if json_wanted:
        as_json({"signer": signer, **manifest.model_dump(mode="json")})
        return
    click.echo(f"{file}: {_in_words(manifest)}")
    who = f"signed by {signer}" if signer else "not signed"
    click.echo(f"whole, {who} on {manifest.node}, with Torch {manifest.version}; fleet {manifest.fleet or '-'}")
    rows = [(one.node, one.files, one.why_missing or "here") for one in manifest.nodes]
    as_table([Column("NODE"), Column("FILES"), Column("STATE")], rows)


@backup.command()
@click.option("--former", metavar="PLACE", help="The former broker, as HOST:PORT/DB (default: the backup's).")
@click.option("--send", "names", multiple=True, metavar="TASK", help="Hand this one to the fleet anew; or `all`.")
@JSON
def lost(former: str | None, names: tuple[str, ...], json_wanted: bool) -> None:
    """List the tasks that were enqueued on this machine after the backup that was restored.

    The fleet hears of those that this machine knows to have ended. Whether one of the others was done is not known:
    with --send it is handed to the fleet anew.
    """
    found = here.tasks_after_backup(former)
    if unknown := set(names) - {*found, "all"}:
        raise InvalidRequest(f"not among the tasks that came after the backup: {', '.join(sorted(unknown))}")
    sent = found if "all" in names else [one for one in found if one in names]
    recovery.send_again(sent)
    left = [one for one in found if one not in sent]
    if json_wanted:
        as_json({"lost": left, "sent": sent})
        return
    click.echo(f"{len(left)} tasks enqueued here came after the backup, and nothing says whether they were done")
    for one in left:
        click.echo(one)
    if sent:
        click.echo(f"sent anew: {', '.join(sent)}")


@click.command()
@_FILE
@_PASSPHRASE
@_IDENTITY
@_WITHOUT
@click.option("--only", type=click.Choice([str(one) for one in Only]), help="Only the broker, or this machine's files.")
@click.option("--replace", is_flag=True, help="Have it in place of what is there.")
@JSON
def restore(
    file: Path,
    passphrase_file: Path | None,
    identity_file: Path | None,
    without_keys: bool,
    only: str | None,
    replace: bool,
    json_wanted: bool,
) -> None:
    """Restore a backup: this machine's files, and what lay on the broker, onto an empty one of any kind.

    An interrupted restoring is repeated with the same command; until then the broker gives nobody a task.
    """
    refuse_in_pane(settings().state, "restore")
    done = here.restore_here(
        file,
        settings(),
        opener=_opener(passphrase_file, identity_file, asks=_may_ask(without_keys, only)),
        without_keys=without_keys,
        only=Only(only) if only else None,
        replace=replace,
    )
    if json_wanted:
        as_json(done)
    else:
        _print_restoring(file, done)


def _may_ask(without_keys: bool, only: str | None) -> bool:
    return sys.stdin.isatty() and not without_keys and only != Only.BROKER


def _print_restoring(file: Path, done: Restoring) -> None:
    manifest = done.manifest
    click.echo(f"restored {file}, made {local(manifest.made_at)}: {done.files} files, {done.keys} keys of the broker")
    click.echo(f"{manifest.open} tasks are open and {manifest.ended} had ended; what came later is not known to it")
    if done.came_after:
        click.echo(f"{len(done.came_after)} tasks in this machine's ledger came after it:")
        for one in done.came_after[:_SHOWN]:
            click.echo(f"  {one}")
    click.echo("On each machine that lived on and enqueued tasks, run 'torch-tasks backup lost' before agents start.")


def _seal(passphrase_file: Path | None, recipients: tuple[str, ...]) -> Seal:
    if recipients and passphrase_file:
        raise InvalidRequest("the keys are sealed either with --passphrase-file or for each --recipient, not both")
    return Recipients(recipients) if recipients else _passphrase(passphrase_file, twice=True)


def _opener(passphrase_file: Path | None, identity_file: Path | None, *, asks: bool) -> Opener | None:
    if identity_file:
        return Identities.in_file(identity_file)
    return _passphrase(passphrase_file) if passphrase_file or asks else None


def _passphrase(file: Path | None, *, twice: bool = False) -> Passphrase:
    if file:
        return Passphrase.in_file(file)
    if not sys.stdin.isatty():
        raise InvalidRequest("how are the keys sealed? Give --passphrase-file FILE, --recipient KEY, or --without-keys")
    asked: Any = click.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=twice)
    return Passphrase(str(asked))


def _in_words(manifest: Manifest) -> str:
    size = sum(part.bytes for part in manifest.parts)
    made = f"made {local(manifest.made_at)} in {manifest.seconds:.1f} s, {size / 1e6:.1f} MB before packing"
    tasks = f"{manifest.open} open and {manifest.ended} ended tasks, {manifest.keys} keys of the broker"
    unsent = len(manifest.without_message)
    unpublished = f", {unsent} of the open ones without a message, which their ledgers send" if unsent else ""
    return f"{made}: {tasks}{unpublished}; {'with' if manifest.has_keys else 'without'} the keys of {manifest.node}"


def _missing(manifest: Manifest) -> str:
    which = "; ".join(f"{one.node}: {one.why_missing}" for one in manifest.missing)
    return f"the backup is there, and these machines are missing in it: {which}. Try again when they answer"
