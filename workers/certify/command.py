"""``torch-tasks certify``: each kind's program is tried in a process and a folder of its own."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from torch_tasks.cli.names import KIND
from torch_tasks.cli.options import JSON
from torch_tasks.cli.output import as_json, as_table, waiting
from torch_tasks.cli.tables import Column, state, wrapped
from torch_tasks.config_files import known_kinds, user_config
from torch_tasks.errors import CannotCertify
from torch_tasks.machine.certificates import Certificates
from torch_tasks.model.certificate import Certificate, Outcome, PromiseResult, ReleaseState
from torch_tasks.settings import settings
from torch_tasks.system.loops import Loop
from torch_tasks.system.processes import end_on_signals
from torch_tasks.workers.certify.certification import OnResult
from torch_tasks.workers.certify.home import end_processes
from torch_tasks.workers.certify.trial import CERTIFICATE, HOME, SCREENS, home_of
from torch_tasks.workers.programs.config import kind_config
from torch_tasks.workers.programs.installed import release_of
from torch_tasks.workers.tmux.server import require_tmux

#: How long one kind may take, on a machine that does other things besides.
_MOST_SECONDS = 1200.0
_END_SECONDS = 8.0
_UNKNOWN = "unknown"
_COLUMNS = (Column("KIND"), Column("PROMISE"), state("RESULT"), Column("TOOK"), wrapped("WHAT WAS SEEN", least=20))
_SCREENS = "tests/screens"


@click.command()
@click.argument("kind", required=False, type=KIND)
@click.option(
    "--record",
    is_flag=False,
    flag_value=_SCREENS,
    metavar="[FOLDER]",
    help=f"Also write the screens that were seen, as tests read them, into FOLDER/KIND (default: {_SCREENS}).",
)
@JSON
def certify(kind: str | None, record: str | None, json_wanted: bool) -> None:
    """Try the installed program of KIND, or of every kind, against a fake model: does all that Torch promises hold?

    It runs in an empty home of its own and reaches nothing but loopback, for about two minutes. What was found is kept
    as a certificate in the state folder. Exit code 1 if something did not hold.
    """
    require_tmux()
    end_on_signals()
    certificates = Certificates(settings().state)
    found: list[tuple[Certificate, Path]] = []
    for one in [kind] if kind else _installed_kinds():
        with waiting(f"trying {one}") as status:
            certificate = try_installed(one, _show_results(one, status), record)
        found.append((certificate, certificates.keep(certificate)))
    if json_wanted:
        as_json([certificate for certificate, _ in found])
    else:
        _print(found)
    sys.exit(1 if any(certificate.release_state is ReleaseState.BROKEN for certificate, _ in found) else 0)


def _installed_kinds() -> list[str]:
    """The kinds that can be tried here."""
    kinds = [kind for kind in known_kinds() if _is_known(kind) and kind_config(kind).path]
    if not kinds:
        raise CannotCertify("no program that could be certified is on PATH; 'torch-tasks kinds' lists what Torch knows")
    return kinds


def _is_known(kind: str) -> bool:
    with suppress(CannotCertify):
        return bool(home_of(kind))
    return False


def _show_results(kind: str, status: Any) -> OnResult:
    """What shows each result on the moving line, if there is one."""

    def show(result: PromiseResult) -> None:
        if status:
            status.update(f"trying {kind}: {result.promise} {result.outcome}")

    return show


def try_installed(kind: str, on_result: OnResult, record: str | None = None) -> Certificate:
    """Try the installed program of this kind; ``on_result`` is called with each result as it comes."""
    home_of(kind)
    config = kind_config(kind)
    if config.path is None:
        raise CannotCertify(f"cannot certify {kind}: there is no program {config.command[0]!r} on PATH; install it")
    release = release_of(config.path, config.environment) or _UNKNOWN
    folder = Path(tempfile.mkdtemp(prefix="torch-"))
    try:
        certificate = _try_in(folder, kind, release, on_result)
        if record:
            shutil.copytree(folder / SCREENS, Path(record) / kind, dirs_exist_ok=True)
    finally:
        end_processes(folder / HOME)
        shutil.rmtree(folder, ignore_errors=True)
    return certificate


def _try_in(folder: Path, kind: str, release: str, on_result: OnResult) -> Certificate:
    argv = [sys.executable, "-P", "-m", __package__, kind, str(folder), release]
    variables = {**os.environ, "TORCH_CONFIG_DIR": str(user_config())}
    errors = folder / "errors"
    with errors.open("wb") as log:
        # Ctrl-C is for this process alone, which ends the trial in good order.
        trial = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=variables, start_new_session=True
        )
    limit = Loop("limit of a trial", trial.kill, delay=_MOST_SECONDS, pause=math.inf)
    limit.start()
    try:
        assert trial.stdout
        for line in trial.stdout:
            on_result(PromiseResult.model_validate_json(line))
        trial.wait()
    finally:
        limit.stop()
        if trial.poll() is None:
            _end(trial)
    try:
        return Certificate.model_validate_json((folder / CERTIFICATE).read_bytes())
    except FileNotFoundError:
        last = errors.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise CannotCertify(f"cannot certify {kind}: the trial ended with {trial.returncode}: {last[0]}") from None


def _end(trial: subprocess.Popen[bytes]) -> None:
    trial.terminate()
    try:
        trial.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        trial.kill()
        trial.wait()


def _took(result: PromiseResult) -> str:
    return f"{result.seconds:g} s" if result.seconds else ""


def _print(found: list[tuple[Certificate, Path]]) -> None:
    rows = [
        (certificate.kind, result.promise, result.outcome, _took(result), result.detail)
        for certificate, _ in found
        for result in certificate.promises
    ]
    as_table(_COLUMNS, rows)
    for certificate, file in found:
        held = sum(result.outcome is Outcome.HELD for result in certificate.promises)
        broken = f" ({', '.join(result.promise for result in certificate.broken)})" if certificate.broken else ""
        click.echo(
            f"{certificate.kind} {certificate.release} is {certificate.release_state}{broken}: {held} held, "
            f"{len(certificate.broken)} broken; it could reach {certificate.network}; {file}"
        )
