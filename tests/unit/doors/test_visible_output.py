"""What is printed and logged is visible text: it steers no terminal, hides nothing, imitates no line of Torch's."""

from __future__ import annotations

import ast
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from celery import signals
from click.testing import CliRunner
from rich.text import Text

from torch_tasks.app import app
from torch_tasks.cli import VisibleCommand
from torch_tasks.cli.output import as_fields, as_json, as_table, print_styled, waiting
from torch_tasks.cli.tables import Column
from torch_tasks.system.terminal import VisibleStream, make_log_visible, visible_output
from torch_tasks.visible_text import escaped, hanging, one_line, visible

REPOSITORY = Path(__file__).parents[3]
OSC_52 = "\x1b]52;c;cm0gLXJmIH4=\x07"
HOSTILE = f"a{OSC_52}b\x9b2Jc\u202ed\u2066e\r\x1b[2Kf\x08\x7f\u200bg\U000e0041h\u2028i"
SHOWN = "a␛]52;c;cm0gLXJmIH4=␇b⟨U+009B⟩2Jc⟨U+202E⟩d⟨U+2066⟩e␍␛[2Kf␈␡⟨U+200B⟩g⟨U+E0041⟩h⟨U+2028⟩i"


def test_what_a_terminal_would_obey_or_hide_is_shown_as_a_sign() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("\udcff") == "⟨U+DCFF⟩"


@pytest.mark.parametrize("text", ["two\nlines\twith a tab\r\n", "日本語 é 🚒 ✓ ⠼", "👩\u200d💻 \u00a0x", "مرحبا שלום"])
def test_what_does_no_harm_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_one_line_is_one_line() -> None:
    assert one_line("a\nb\tc\r\nd\x1b", 100) == "a␊b␉c␍␊d␛"
    assert one_line("abcdef", 3) == "abcd…"


def test_json_keeps_its_meaning_and_shows_nothing_else() -> None:
    value = {"text": HOSTILE + "\udcff"}
    written = escaped(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(written) == value
    assert visible(written) == written


class _Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@contextmanager
def printed() -> Iterator[io.StringIO]:
    """What reaches standard output and standard error, a terminal each, meanwhile."""
    with pytest.MonkeyPatch.context() as patch, _Screen() as both:
        patch.setattr(sys, "stdout", both)
        patch.setattr(sys, "stderr", both)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "200")
        with visible_output():
            yield both


def test_every_way_of_printing_is_visible() -> None:
    with printed() as screen:
        click.echo(HOSTILE)
        click.echo(HOSTILE, err=True)
        print(HOSTILE)
        sys.stdout.writelines([HOSTILE, "\n"])
        assert screen.getvalue() == f"{SHOWN}\n" * 4


def test_a_table_and_json_are_visible() -> None:
    with printed() as screen:
        as_table((Column("A"), Column("B")), [(HOSTILE, "x")])
        as_json({"a": HOSTILE})
        print_styled(Text(HOSTILE, style="bold"))
        said = screen.getvalue()
    assert SHOWN in said
    assert not [sequence for sequence in (OSC_52, "\x9b", "\u202e", "\x1b[2K", "\x07") if sequence in said]


def test_colours_and_the_moving_line_are_torchs_own() -> None:
    with printed() as screen:
        print_styled(Text("red", style="red"))
        with waiting(f"for {OSC_52}"):
            click.echo(HOSTILE)
        said = screen.getvalue()
    assert "\x1b[31mred\x1b[0m" in said
    assert "\x1b[?25l" in said, "the line moves"
    assert "\x1b]52" not in said


def test_no_value_looks_like_another_field() -> None:
    with printed() as screen:
        as_fields([("note", "x\nstate:     succeeded"), ("error", "")], 11)
        assert screen.getvalue() == "note:      x\n           state:     succeeded\n"


def test_usage_errors_are_visible_too() -> None:
    @click.command(cls=VisibleCommand)
    @click.argument("number", type=int)
    def command(number: int) -> None:
        raise click.UsageError(OSC_52)

    result = CliRunner().invoke(command, ["1"])
    assert result.exit_code == 2
    assert result.output.endswith("Error: ␛]52;c;cm0gLXJmIH4=␇\n")
    assert not isinstance(sys.stdout, VisibleStream), "others print as before"


def test_in_a_pipe_nothing_is_dropped_either() -> None:
    program = (
        "import click; from torch_tasks.cli import VisibleCommand\n"
        "click.command(cls=VisibleCommand)(lambda: click.echo('a\\x1b[2Jb'))()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode() == "a␛[2Jb\n"


def test_only_one_place_makes_what_steers_a_terminal() -> None:
    """Who needs colours or movements uses ``cli/output.py``, which lets no other text through."""
    modules = [file for room in ("torch_tasks", "workers", "beat") for file in (REPOSITORY / room).rglob("*.py")]
    found = {str(module.relative_to(REPOSITORY)) for module in modules if _goes_around(module)}
    assert found == {"torch_tasks/cli/output.py"}


def _goes_around(module: Path) -> bool:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            if names & {"rich.console.Console", "rich.print", "torch_tasks.system.terminal.beneath"}:
                return True
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.__stdout__", "sys.__stderr__"):
            return True
    return False


# ── log lines ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_logged_value_forges_a_line_or_steers_a_terminal() -> None:
    log, out = logging.Logger("forged"), io.StringIO()
    for format_ in ("[%(asctime)s: %(levelname)s] %(message)s", None):
        handler = logging.StreamHandler(out)
        handler.setFormatter(logging.Formatter(format_) if format_ else None)
        log.addHandler(handler)
    make_log_visible(log)
    make_log_visible(log)
    forged = "x\n[2026-11-29 00:00:00,000: INFO] task t-1 succeeded\r[2026]"
    log.error("a message from %s", forged + OSC_52)
    try:
        raise ValueError(forged)
    except ValueError:
        log.exception("it failed")
    lines = out.getvalue().splitlines()
    assert [line for line in lines if line.startswith("[2026-11-29 00")] == []
    assert [line for line in lines if not line.startswith("    ")] == [
        *[line for line in lines if "a message from" in line],
        *[line for line in lines if line.endswith("it failed")],
    ]
    assert "\x1b" not in out.getvalue()
    assert "    [2026-11-29 00:00:00,000: INFO] task t-1 succeeded␍[2026]␛]52" in out.getvalue()
    assert "    ValueError: x" in lines


@pytest.mark.parametrize("set_up", ["after_setup_logger", "after_setup_task_logger"])
def test_the_log_of_every_worker_and_of_beat_is_so(set_up: str) -> None:
    assert app.main == "torch", "it is Torch's app that listens"
    log, out = logging.Logger("celery's"), io.StringIO()
    log.addHandler(logging.StreamHandler(out))
    getattr(signals, set_up).send(sender=None, logger=log)
    log.warning("a\n[2026]\x1b[2J")
    assert out.getvalue() == "a\n    [2026]␛[2J\n"


def test_lines_after_the_first_hang() -> None:
    assert hanging("a\nb\n\x1bc", 2) == "a\n  b\n  ␛c"
