"""A person's home for a program and its fake model: one class per program, and one for a newcomer at it.

Each is as bare as can be: nothing of the user's own, a dummy key that tells the agent's name, the fake model as the
only service, no telemetry, no updates. A newcomer's program meets its first dialogs; the others answered them before.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import psutil

from torch_tasks.errors import AgentUnavailable
from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.fake_model.steps import Call, Step, Text
from torch_tasks.workers.certify.internet import Internet
from torch_tasks.workers.tmux.pane import AgentPane

_KEY_SECONDS = 0.2
"""Between the keys that a person presses."""


class Home(ABC):
    """The home of one agent, its folder to work in, and how its CLI is started there."""

    cli: ClassVar[str]
    flags: ClassVar[tuple[str, ...]] = ()
    created: ClassVar[str] = "There it is."
    """What is on the screen as soon as :meth:`creates` is done."""
    exit_keys: ClassVar[tuple[str, ...]] = ("C-c", "C-c")
    """They leave the CLI if its composer is empty."""

    model: ClassVar[str | None] = None
    """What the program calls the fake model; None if it need not be told."""

    def __init__(self, folder: Path, llm: FakeLLM, agent_id: str = "developer-1", path: str | None = None) -> None:
        """``path`` replaces this process's own PATH."""
        self.folder = folder
        self._path = path or os.environ["PATH"]
        self.work = folder / "work"
        self.llm = llm
        self.key = f"sk-{agent_id}"
        self.work.mkdir(parents=True)
        self.file(".gitconfig", "[user]\nname = A Person\nemail = person@example.com\n")
        subprocess.run(["git", "init", "-q", str(self.work)], check=True, env=self.environment)
        self.settle()

    @property
    def command(self) -> list[str]:
        """What starts the CLI."""
        return [self.cli, *self.flags]

    @property
    def environment(self) -> dict[str, str]:
        """All that the CLI sees of the world."""
        bare = {"HOME": str(self.folder), "PATH": self._path, "LANG": "C.UTF-8", "TZ": "UTC", "SHELL": "/bin/bash"}
        return {**bare, "NO_PROXY": "127.0.0.1", **self.variables}

    @property
    @abstractmethod
    def variables(self) -> dict[str, str]:
        """The CLI's own variables."""

    @abstractmethod
    def settle(self) -> None:
        """Write the CLI's files, as if its person had answered all its questions."""

    @abstractmethod
    def is_ready(self, pane: AgentPane) -> bool:
        """The CLI has started and has an empty composer."""

    @abstractmethod
    def shell(self, command: str) -> Call:
        """The model's call of this CLI's shell tool; the CLI asks its person first."""

    def creates(self, name: str) -> list[Step]:
        """What the model does to have a file of this name in the folder; the CLI asks its person first."""
        return [self.shell(f"touch {name}"), Text(self.created)]

    @abstractmethod
    def asks(self, pane: AgentPane) -> bool:
        """The CLI asks for a permission; Enter grants it."""

    # ── what is special when it is tried ─────────────────────────────────────────────────────────────────────────────

    gives_up: ClassVar[bool] = False
    """It soon tells of an overloaded model; others try again for longer than anybody waits here."""
    leaves_composer_alone: ClassVar[bool] = False
    """Prompts go past its composer, which is a person's alone."""

    compact_command: ClassVar[str] = ""
    """Has it make its conversation shorter; empty if it does so when its model finds a prompt too long."""

    def kept(self, words: str) -> str:
        """The words of a prompt as the CLI keeps them."""
        return words

    def choosing(self, question: str, *choices: str) -> Call:
        """The model's call by which the CLI asks its person to choose."""
        raise NotImplementedError(f"{self.cli} asks no questions")

    def leave(self, pane: AgentPane) -> None:
        """Press the keys that leave the CLI."""
        with contextlib.suppress(AgentUnavailable):  # it has ended before the last of them
            for key in self.exit_keys:
                pane.press(key)
                time.sleep(_KEY_SECONDS)

    def file(self, name: str, content: str | dict[str, Any]) -> Path:
        """Write a file below the home."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def clear(self) -> None:
        """End whatever runs there, and forget the folder."""
        end_processes(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def end_processes(home: Path) -> None:
    """End whatever runs with this home, wherever it was started."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOME") == str(home):
                process.kill()


class ClaudeHome(Home):
    """Claude Code."""

    cli = "claude"
    gives_up = True

    def kept(self, words: str) -> str:
        return words.replace("\t", "    ")

    def choosing(self, question: str, *choices: str) -> Call:
        options = [{"label": choice, "description": "as it says"} for choice in choices]
        asked = {"question": question, "header": "Choice", "multiSelect": False, "options": options}
        return Call("AskUserQuestion", {"questions": [asked]})

    @property
    def variables(self) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": self.llm.url,
            "ANTHROPIC_API_KEY": self.key,
            "DISABLE_TELEMETRY": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "2",
        }

    def settle(self) -> None:
        trusted = {str(self.work): {"hasTrustDialogAccepted": True}}
        approved = {"approved": [self.key[-20:]], "rejected": []}
        self.file(
            ".claude.json",
            {"hasCompletedOnboarding": True, "customApiKeyResponses": approved, "projects": trusted},
        )

    def write_plan(self, plan: str) -> None:
        """Write the file that the CLI has just named to the model for its plan."""
        request = json.dumps(self.llm.requests(self.key)[-1].body)
        [file] = set(re.findall(rf"{self.folder}/[^\s\"]*/plans/[\w-]+\.md", request))
        self.file(file, plan)

    def is_ready(self, pane: AgentPane) -> bool:
        return self._status == "idle"

    def shell(self, command: str) -> Call:
        return Call("Bash", {"command": command, "description": "Run a command"})

    def asks(self, pane: AgentPane) -> bool:
        return self._status == "waiting"

    @property
    def _status(self) -> str:
        for session in self.folder.glob(".claude/sessions/*.json"):
            try:
                return str(json.loads(session.read_text()).get("status"))
            except (FileNotFoundError, json.JSONDecodeError):
                continue
        return ""


class NewToClaude(ClaudeHome):
    """A user who has never started it: it first checks whether its makers' hosts answer."""

    @cached_property
    def internet(self) -> Internet:
        """All that it sees of the world but its model."""
        return Internet(self.folder, ["api.anthropic.com/api/hello", "platform.claude.com/v1/oauth/hello"]).start()

    @property
    def variables(self) -> dict[str, str]:
        proxy = {"HTTPS_PROXY": self.internet.url, "NODE_EXTRA_CA_CERTS": str(self.internet.certificate)}
        return {**super().variables, **proxy}

    def settle(self) -> None:
        """It has no files yet."""

    def clear(self) -> None:
        super().clear()
        self.internet.end()


class CodexHome(Home):
    """Codex, in the pane's own processes."""

    cli = "codex"
    gives_up = True
    compact_command = "/compact"
    flags = ("--disable", "daemon_auto_start")
    leaves_composer_alone = True
    exit_keys = ("C-c",)

    @property
    def variables(self) -> dict[str, str]:
        return {"OPENAI_API_KEY": self.key}

    def settle(self) -> None:
        self.file(
            ".codex/config.toml",
            f"""
            model = "fake-model"
            model_provider = "fake"
            check_for_update_on_startup = false
            [model_providers.fake]
            name = "Fake"
            base_url = "{self.llm.openai_url}"
            wire_api = "responses"
            env_key = "OPENAI_API_KEY"
            request_max_retries = 2
            stream_max_retries = 2
            [analytics]
            enabled = false
            [tui]
            screen_reader_detection_done = true
            [projects."{self.work}"]
            trust_level = "trusted"
            """,
        )

    def is_ready(self, pane: AgentPane) -> bool:
        return "\n› " in pane.screen()  # noqa: RUF001 - as it draws it

    def shell(self, command: str) -> Call:
        escalated = {"sandbox_permissions": "require_escalated", "justification": "It is asked for"}
        return Call("exec_command", {"cmd": command, **escalated})

    def asks(self, pane: AgentPane) -> bool:
        return "Press enter to confirm or esc to cancel" in pane.screen()


class NewToCodex(CodexHome):
    """A user who has trusted no folder yet."""

    def settle(self) -> None:
        super().settle()
        config = self.folder / ".codex/config.toml"
        config.write_text(config.read_text().partition("[projects")[0])


class GeminiHome(Home):
    """The Gemini CLI."""

    cli = "gemini"

    def choosing(self, question: str, *choices: str) -> Call:
        options = [{"label": choice, "description": "as it says"} for choice in choices]
        asked = {"question": question, "header": "Choice", "type": "choice", "options": options}
        return Call("ask_user", {"questions": [asked]})

    @property
    def variables(self) -> dict[str, str]:
        return {"GEMINI_API_KEY": self.key, "GOOGLE_GEMINI_BASE_URL": self.llm.url}

    def settle(self) -> None:
        self.file(
            ".gemini/settings.json",
            {
                "security": {"auth": {"selectedType": "gemini-api-key"}},
                "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
                "privacy": {"usageStatisticsEnabled": False},
            },
        )
        self.file(".gemini/trustedFolders.json", {str(self.work): "TRUST_FOLDER"})

    def is_ready(self, pane: AgentPane) -> bool:
        # The composer is there 0.1 s before the CLI asks for framed pastes, the headline 0.6 s after.
        return "Authenticated with" in pane.screen() and "Type your message or @path/to/file" in pane.screen()

    def shell(self, command: str) -> Call:
        return Call("run_shell_command", {"command": command, "description": "Run a command"})

    def asks(self, pane: AgentPane) -> bool:
        return "Allow execution of" in pane.screen()


class NewToGemini(GeminiHome):
    """A user who has met none of its dialogs."""

    def settle(self) -> None:
        """It has no files yet."""


class OpenCodeHome(Home):
    """OpenCode."""

    cli = "opencode"
    leaves_composer_alone = True

    def choosing(self, question: str, *choices: str) -> Call:
        options = [{"label": choice, "description": "as it says"} for choice in choices]
        return Call("question", {"questions": [{"question": question, "header": "Choice", "options": options}]})

    exit_keys = ("C-c",)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        }

    def settle(self) -> None:
        limit = {"context": 200000, "output": 8000}
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "Fake",
            "options": {"baseURL": self.llm.openai_url, "apiKey": self.key},
            "models": {"fake-model": {"name": "Fake Model", "limit": limit}},
        }
        self.file(
            ".config/opencode/opencode.json",
            {
                "autoupdate": False,
                "share": "disabled",
                "provider": {"fake": provider},
                "model": "fake/fake-model",
                "small_model": "fake/fake-model",
                "experimental": {"disable_paste_summary": True},
                "permission": {"bash": "ask", "edit": "ask", "webfetch": "ask"},
            },
        )
        self.file(".npmrc", "offline=true\nfetch-retries=0\n")

    def is_ready(self, pane: AgentPane) -> bool:
        return "Ask anything" in pane.screen()

    def shell(self, command: str) -> Call:
        return Call("bash", {"command": command, "description": "Run a command"})

    def asks(self, pane: AgentPane) -> bool:
        return "Permission required" in pane.screen()


class AiderHome(Home):
    """aider."""

    cli = "aider"
    model = "openai/fake-model"
    created = "Commit "
    flags = (
        "--model",
        model,
        "--no-check-update",
        "--no-gitignore",
        "--analytics-disable",
        "--no-show-model-warnings",
        "--no-show-release-notes",
    )

    @property
    def variables(self) -> dict[str, str]:
        return {
            "OPENAI_API_KEY": self.key,
            "OPENAI_API_BASE": self.llm.openai_url,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }

    def settle(self) -> None:
        # It would fetch this list of a model that it does not know.
        self.file(".aider/caches/model_prices_and_context_window.json", {"openai/known-model": {}})

    def is_ready(self, pane: AgentPane) -> bool:
        return pane.screen().rpartition("\n")[2].rstrip() == ">"

    def shell(self, command: str) -> Call:
        raise NotImplementedError("aider has no tools")

    def creates(self, name: str) -> list[Step]:
        return [Text(f"Here it is.\n\n{name}\n```\nmade\n```\n")]

    def asks(self, pane: AgentPane) -> bool:
        return "(Y)es/(N)o" in pane.cursor_line()


HOMES: dict[str, type[Home]] = {home.cli: home for home in (ClaudeHome, CodexHome, GeminiHome, OpenCodeHome, AiderHome)}

NEWCOMERS: dict[str, type[Home]] = {**HOMES, **{home.cli: home for home in (NewToClaude, NewToCodex, NewToGemini)}}
"""Those whose programs meet their first dialogs, where there are any."""
