"""One kind's program from its empty home to its certificate, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

from torch_tasks.errors import CannotCertify
from torch_tasks.model.certificate import Certificate, PromiseResult
from torch_tasks.model.fields import now
from torch_tasks.system.loops import in_background
from torch_tasks.workers.certify.certification import Certification
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.home import Home, OwnHome
from torch_tasks.workers.certify.homes import NEWCOMERS, OVER_ACP
from torch_tasks.workers.programs.config import kind_config, lowest_shipped

CERTIFICATE, SCREENS, HOME, _STATE = "certificate.json", "screens", "home", "state"
"""In the trial's folder."""
_LOOPBACK = "nothing but loopback"
_PACE = {"TORCH_AGENT_START_SECONDS": "120", "TORCH_INTERRUPT_SECONDS": "10"}
"""More time than a fleet gives: what is tried is the program, not the machine."""
_CLOSED_PROXY = "http://127.0.0.1:9"


def home_of(kind: str) -> Callable[[Path, FakeLLM], Home]:
    """Makes the home in which this kind's program meets the fake model."""
    config = kind_config(kind)
    if config.certify:
        return partial(OwnHome, kind, config.certify)
    shipped = lowest_shipped(kind) or ""
    homes, program = (OVER_ACP, Path(config.command[0]).name) if shipped == "acp" else (NEWCOMERS, shipped)
    if home := homes.get(program):
        return home
    raise CannotCertify(
        f"cannot certify {kind}: nothing says how its program reaches a fake model; Torch knows that of "
        f"{', '.join(NEWCOMERS)}, of {' and '.join(OVER_ACP)} over the Agent Client Protocol, and of kinds that are "
        "laid over them, and reads it in [certify] of other kinds' files"
    )


def try_kind(kind: str, folder: Path, release: str, why_not_alone: str) -> None:
    """Try it, print each result as JSON, and write the certificate and the screens into the folder.

    ``why_not_alone`` is why this process has more of a network than loopback, if so.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    in_background("end with parent", _end_with_parent)
    with FakeLLM(folder / "llm") as llm:
        home = home_of(kind)(folder / HOME, llm)
        _leave_environment(home, folder, alone=not why_not_alone)
        try:
            trial = Certification(kind, home, folder / "agent", _print_result)
            trial.run()
        finally:
            home.clear()
    certificate = Certificate(
        kind=kind,
        program=str(kind_config(kind).path),
        release=release,
        torch=version("torch-tasks"),
        at=now(),
        network=_LOOPBACK if not why_not_alone else f"this machine's, by a closed proxy: {why_not_alone}",
        promises=tuple(trial.results),
        recordings=tuple(trial.recordings),
    )
    trial.screens.write(folder / SCREENS, kind, release)
    (folder / CERTIFICATE).write_text(certificate.model_dump_json())


def _end_with_parent() -> None:
    """However the process ends that holds the other end of the standard input, this one ends, too, in good order."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _leave_environment(home: Home, folder: Path, *, alone: bool) -> None:
    """Have nothing in this process's environment but what the home says."""
    config = os.environ["TORCH_CONFIG_DIR"]
    closed = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _CLOSED_PROXY)
    own = {
        "TORCH_CONFIG_DIR": config,
        "TORCH_STATE_DIR": str(folder / _STATE),
        # Codex trusts no helper of its own below a folder of temporary files, where this home lies.
        "TORCH_SANDBOX_WRITABLE": json.dumps([str(home.temporaries)]),
        **_PACE,
    }
    os.environ.clear()
    os.environ.update({**({} if alone else closed), **home.environment, **own})


def _print_result(result: PromiseResult) -> None:
    print(result.model_dump_json(), flush=True)  # noqa: T201 - to the process that started this one
