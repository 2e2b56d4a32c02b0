"""What send-claude-message.sh says of a program that Torch does not host, beside what that program has read.

The fake agent runs in the user's own tmux; Torch has a kind for it, or none and reads it as it reads any program.
"""

from __future__ import annotations

import shlex
import shutil

import pytest
from desk import Desk
from desk import desk as desk
from fake_kind import kind_toml
from fakes.cli.client import FakeCli
from fakes.cli.scenario import Faults, Scenario, Turn, Ways
from fakes.cli.steps import Permission, Say, Work
from waiting import until

pytestmark = pytest.mark.slow
TEXT = "Look at the build of shop-api, please"
LINES = "\n".join(f"line {number} of a long message" for number in range(30))
REFUSED, UNCERTAIN = 1, 6


class Program:
    """The fake agent in a session of the user's."""

    def __init__(self, desk: Desk, scenario: Scenario, *, known: bool, listens: bool = True) -> None:
        self.desk = desk
        self.cli = FakeCli(desk.folder / "fake", scenario)
        config = desk.folder / "config"
        (config / "agents").mkdir(parents=True)
        if known:
            toml = kind_toml([str(self.cli.program)], hooks=False, listens=listens)
            (config / "agents" / "fake.toml").write_text(toml)
        desk.env["TORCH_CONFIG_DIR"] = str(config)
        self.pane = desk.session("fake", *self.cli.argv, shows="? for shortcuts")

    def send(self, text: str = TEXT, code: int = 0) -> str:
        """Send it with the script, which must end with this code; returns what it says of an error."""
        return self.desk.send("fake:0", text, code=code)

    def shows(self, text: str) -> None:
        until(lambda: text in self.desk.screen(self.pane), f"the screen shows {text!r}")

    def composer(self) -> str:
        """The rows of its box."""
        rows = [row for row in self.desk.screen(self.pane).splitlines() if row.startswith("│")]
        return "".join(row.strip("│").strip() for row in rows)


@pytest.fixture(params=[True, False], ids=["known", "unknown"])
def known(request: pytest.FixtureRequest) -> bool:
    """Whether Torch has a kind for the program."""
    return bool(request.param)


@pytest.mark.parametrize("text", [TEXT, LINES], ids=["one line", "thirty lines"])
def test_a_free_program_reads_it_once_and_exact(desk: Desk, known: bool, text: str) -> None:
    program = Program(desk, Scenario(), known=known)
    program.send(text)
    assert program.cli.submitted() == [text]
    program.shows("You said")
    program.send("and another one")
    assert program.cli.submitted() == [text, "and another one"]


def test_a_swallowed_enter_is_pressed_again(desk: Desk, known: bool) -> None:
    program = Program(desk, Scenario(faults=Faults(swallow_enters=1)), known=known)
    program.send()
    assert program.cli.submitted() == [TEXT]


def test_a_question_is_not_answered(desk: Desk, known: bool) -> None:
    program = Program(desk, Scenario(Turn((Permission(), Say()))), known=known)
    program.send("begin")
    program.shows("Do you want to proceed?")
    said = program.send(code=REFUSED)
    assert "nothing was sent. Answer it first" in said
    assert (program.cli.submitted(), program.cli.keys(), program.cli.local()) == (["begin"], [], [])


def test_a_draft_is_not_merged(desk: Desk, known: bool) -> None:
    program = Program(desk, Scenario(), known=known)
    desk.tmux("send-keys", "-t", program.pane, "-l", "my own words")
    program.shows("my own words")
    assert "holds 'my own words' already; nothing was sent" in program.send(code=REFUSED)
    assert program.cli.submitted() == []
    assert program.composer() == "> my own words"


def test_a_busy_program_that_queues_it_has_it(desk: Desk, known: bool) -> None:
    program = Program(desk, Scenario(turns=(Turn((Work(6), Say()), match="begin"),)), known=known)
    program.send("begin")
    program.shows("esc to interrupt")
    program.send()
    assert program.composer() == ">"
    until(lambda: program.cli.submitted() == ["begin", TEXT], "it is read when the first turn is over", 30)


def test_a_text_that_a_busy_program_does_not_take_is_not_called_sent(desk: Desk, known: bool) -> None:
    scenario = Scenario(turns=(Turn((Work(600),), match="begin"),), ways=Ways(busy_enter="ignore"))
    program = Program(desk, scenario, known=known, listens=False)
    program.send("begin")
    program.shows("esc to interrupt")
    said = program.send(code=REFUSED)
    assert ("is at work and takes no text then" if known else "took no text") in said
    assert program.cli.submitted() == ["begin"]
    assert program.composer() == ">", "nothing of it is left there"


def test_a_deaf_program_is_told_of(desk: Desk, known: bool) -> None:
    program = Program(desk, Scenario(faults=Faults(swallow_enters=99)), known=known)
    assert "took no text: the message was still in its input line after 3 Enters" in program.send(code=REFUSED)
    assert (program.cli.submitted(), program.composer()) == ([], ">")


def test_a_dialog_that_opens_after_the_paste_gets_no_enter(desk: Desk, known: bool) -> None:
    program = Program(desk, Scenario(faults=Faults(dialog_after_paste="theme")), known=known)
    assert "Enter was not pressed" in program.send(code=UNCERTAIN)
    assert (program.cli.submitted(), program.cli.keys()) == ([], [])


def test_a_program_that_ends_at_the_paste_is_told_of(desk: Desk, known: bool) -> None:
    """The fake agent ends with an error at a dialog that it does not know."""
    program = Program(desk, Scenario(faults=Faults(dialog_after_paste="no such dialog")), known=known)
    assert "Traceback" not in program.send(code=REFUSED)
    assert program.cli.submitted() == []


def test_a_paste_that_is_lost_is_not_called_sent(desk: Desk, known: bool) -> None:
    program = Program(desk, Scenario(faults=Faults(drop_pastes=1)), known=known)
    assert "shows nothing of the message: Enter was not pressed" in program.send(code=UNCERTAIN)
    assert program.cli.submitted() == []


def test_a_paste_that_is_cut_is_taken_back(desk: Desk, known: bool) -> None:
    program = Program(desk, Scenario(faults=Faults(cut_pastes=1, cut_at=20)), known=known)
    assert "only a part of the message arrived" in program.send(code=REFUSED)
    assert (program.cli.submitted(), program.composer()) == ([], ">")


def test_a_shell_in_the_place_of_a_program_runs_nothing(desk: Desk, known: bool) -> None:
    """A person started the program in a shell; it has ended, and the shell would run the message."""
    program = Program(desk, Scenario(), known=known)
    shell = desk.session("mine", "bash", "--norc", "-i", shows="$")
    desk.send("mine:0", shlex.join(program.cli.argv))
    until(lambda: "? for shortcuts" in desk.screen(shell), "the program runs in the shell")
    desk.send("mine:0", "first")
    until(lambda: program.cli.records("turn_over"), "its turn has ended, which the first C-c would only interrupt")
    done = desk.folder / "done"
    desk.tmux("send-keys", "-t", shell, "C-c")
    until(lambda: "again to exit" in desk.screen(shell), "it asks for another one")
    desk.tmux("send-keys", "-t", shell, "C-c")
    until(lambda: desk.screen(shell).rstrip().endswith("$"), "the shell is back")
    said = desk.send("mine:0", f"touch {done}", code=REFUSED)
    assert "has ended, and bash in its place would run the message as a command; nothing was sent" in said
    desk.tmux("set", "-p", "-t", shell, "@torch_program", "sh")
    desk.send("mine:0", f"touch {done}")
    until(done.exists, "whoever means the shell can say so")


def test_a_pane_that_was_started_with_a_program_is_no_shell(desk: Desk) -> None:
    desk.session("left", "git --version; exec env PS1='$ ' bash --norc -i", shows="$")
    said = desk.send("left:0", "rm -rf build", code=REFUSED)
    assert "git in left:0.0 (%0) has ended, and bash in its place would run the message as a command" in said
    desk.session("mine", "env PS1='$ ' bash --norc -i", shows="$")
    desk.send("mine:0", "true")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("read -p 'Overwrite it? [y/N] ' x; echo got $x; sleep 60", "asks: Overwrite it? [y/N]"),
        ("read -sp 'Password: ' x; echo got $x; sleep 60", "asks for what it does not show"),
    ],
)
def test_what_a_script_asks_is_not_answered(desk: Desk, script: str, why: str) -> None:
    pane = desk.session("asks", "bash", "-c", script, shows="Password:" if "Password" in script else "[y/N]")
    assert why in desk.send("asks:0", TEXT, code=REFUSED)
    desk.tmux("send-keys", "-t", pane, "mine", "Enter")
    until(lambda: "got" in desk.screen(pane), "a person has answered")
    assert "got mine\n" in f"{desk.screen(pane).rstrip()}\n", "nothing stood before it"


def test_half_a_command_in_a_shell_is_not_merged(desk: Desk) -> None:
    pane = desk.session("sh", "bash", "--norc", "-i", shows="$")
    desk.tmux("send-keys", "-t", pane, "-l", "rm -rf")
    until(lambda: "rm -rf" in desk.screen(pane), "it is typed")
    assert "holds 'rm -rf' already; nothing was sent" in desk.send("sh:0", "build", code=REFUSED)


@pytest.mark.parametrize("program", ["less", "vi"])
def test_a_pager_or_an_editor_gets_no_letter(desk: Desk, program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"there is no {program} here")
    file = desk.folder / f"{program}.txt"
    file.write_text("".join(f"{number} ends here\n" for number in range(200)))
    pane = desk.session(program, program, str(file), shows="0 ends here")
    said = desk.send(f"{program}:0", "dd :wq", code=REFUSED)
    assert f"{program} in {program}:0.0" in said
    assert "takes no messages; nothing was sent. Leave it first" in said
    desk.tmux("send-keys", "-t", pane, "G")
    until(lambda: "199 ends here" in desk.screen(pane), "it takes a person's key, and has no other before it")
    assert file.read_text().startswith("0 ends here\n")
