"""The fake coding agent as a kind of agent, which Torch drives by a TOML file, as it drives a user's own program."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from fakes.cli.client import FakeCli
from fakes.cli.scenario import Scenario
from nodes import AgentWorker, Node

CERTIFY = """
overloaded = "overloaded"

[certify]
environment = { OPENAI_BASE_URL = "{openai_url}", OPENAI_API_KEY = "{key}" }
tool = { name = "bash" }
gives_up = true
"""
"""What a kind's file ends with whose program may be certified: it asks the model at an address that it is given."""

LOOKS = r"""
[composer]
top = '^╭─+╮$'
bottom = '^╰─+╯$'
prompt = '^│ >( |$)'
continuation = '^│   '
placeholder = '\[Pasted text #\d+(?: \+(?P<lines>\d+) lines)?\]'

[submit]
trace_seconds = 4.0
settle_seconds = SETTLE
while_working = LISTENS

[prompt]
guarded = ["!", "/"]

[answers]
allow = { choose = 'Yes' }
written = ["{workdir}/rules.local"]
text = { choose = 'Type something\.?', keys = ["Enter", "{text}", "Enter"] }

[[dialogs]]
pattern = 'Do you trust the files in this folder'
choose = 'Yes, proceed'
note = "trust this folder"

[[dialogs]]
pattern = 'How is it doing this session'
choose = 'dismiss'

[[rules]]
name = "dialog"
state = "waiting"
where = "bottom 20"
pattern = '^│ (?P<question>[^>\s].*?)\s*│\n(?:│.*\n)+╰─+╯\n\s*(?:Esc|Enter)'
priority = 20

[[rules]]
name = "question in a line"
state = "waiting"
where = "bottom 3"
pattern = '(?P<question>[^\n>]*\?) \((\w)\)[^\n]*/\(\w\)[^\n]*: ?\S{0,3}\Z'
priority = 20

[mode]
shown = '^  ⏵⏵ (?P<mode>\w+) on'
keys = ["BTab"]

[[rules]]
name = "login"
state = "login"
where = "bottom 20"
pattern = 'Sign in to go on:'
priority = 30

[[rules]]
name = "compacting"
state = "compacting"
where = "above composer"
pattern = 'Compacting conversation'
priority = 15

[[rules]]
name = "spinner"
state = "working"
where = "above composer"
pattern = 'esc to interrupt\)'
priority = 10

[[rules]]
name = "title turns"
state = "working"
where = "title"
pattern = '^[⠂⠐]'
priority = 10

[[rules]]
name = "composer"
state = "ready"
where = "composer"
pattern = '\A'

[answer]
strip = '^[●✻⎿ ] '
drop = ['^✻ ']
"""
HOOKS = """
[hooks]
UserPromptSubmit = { event = "accepted", text = "prompt" }
PreToolUse = { event = "working" }
PostToolUse = { event = "working" }
PermissionRequest = { event = "question", tool = "tool_name", input = "tool_input" }
Stop = { event = "stopped", text = "last_assistant_message" }
StopFailure = { event = "failed", text = "last_assistant_message", error = "error" }
PreCompact = { event = "compacting" }
PostCompact = { event = "compacted" }

[errors]
rate_limit = "limit"
authentication_failed = "login"
"""
CONVERSATION = """
[conversation]
begin = ["--session-id", "{conversation}"]
resume = ["--resume", "{conversation}"]
"""


def kind_toml(
    command: list[str], *, hooks: bool, settle: float = 0.0, account: str = "fake", listens: bool = False
) -> str:
    """The TOML of a fake agent that this command starts."""
    looks = LOOKS.replace("SETTLE", str(settle)).replace("LISTENS", str(listens).lower())
    # It keeps a record of what it reads beside itself, where no box lets it write.
    head = f'command = {json.dumps(command)}\naccount = {json.dumps(account)}\nsandbox = "never"\n'
    return f"{head}{looks}{HOOKS if hooks else ''}"


class FakeKind:
    """One fake program with its TOML, and the agent workers that host it."""

    def __init__(
        self,
        node: Node,
        *,
        hooks: bool = True,
        scenario: Scenario | None = None,
        account: str = "fake",
        settle: float = 0.0,
        listens: bool = False,
        name: str = "fake",
        command: Sequence[str] = (),
        more: str = "",
    ) -> None:
        """``more`` goes to the end of the kind's TOML; a ``command`` takes the fake program's place."""
        self._node = node
        self.cli = FakeCli(node.folder / name, scenario)
        self.folder = node.folder / f"config-{name}"
        (self.folder / "agents").mkdir(parents=True)
        command = [*(command or [str(self.cli.program)]), *(["--settings", "{hooks}"] if hooks else [])]
        toml = kind_toml(command, hooks=hooks, settle=settle, account=account, listens=listens)
        (self.folder / "agents" / "fake.toml").write_text(toml + more)

    def worker(
        self,
        agent_id: str = "developer-1",
        role: str = "developer",
        words: Sequence[str] = (),
        *,
        is_awaited: bool = True,
        **environment: str,
    ) -> AgentWorker:
        """Start an agent worker that hosts it."""
        environment["TORCH_CONFIG_DIR"] = str(self.folder)
        return self._node.agent_worker(agent_id, role, kind="fake", words=words, is_awaited=is_awaited, **environment)

    @property
    def agent_folder(self) -> Path:
        """The state folder of the agent ``developer-1``."""
        return self._node.state / "agents" / "developer-1"

    def prompts(self) -> list[str]:
        """The prompts that the model received."""
        return self.cli.submitted()


def words(prompt: str) -> str:
    """The task's own words in what the model received: without briefing, guard and footer."""
    body, footer = re.split(r"\n\n\[torch (?:task|message) (?=[^\n]*$)", prompt)
    assert "\n" not in footer.rstrip("\n")
    return body


def transcript(folder: Path) -> str:
    """The pane's transcript."""
    return (folder / "transcript").read_bytes().decode(errors="replace")
