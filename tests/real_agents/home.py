"""A person's home in which a real CLI is set up and has met its newcomer's dialogs before: one class per CLI.

Each is as bare as can be: nothing of the user's who runs the tests, a dummy key that tells the agent's name, the fake
model as the only service, no telemetry, no updates.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import psutil
from fakes.internet import Internet
from fakes.llm.client import FakeLLM
from fakes.llm.steps import Call, Step, Text

from torch_tasks.workers.tmux.pane import AgentPane

AGENTS = Path(os.environ.get("TORCH_TEST_AGENTS", Path(__file__).parents[2] / ".venv" / "agents"))


class Home(ABC):
    """The home of one agent, its folder to work in, and how its CLI is started there."""

    cli: ClassVar[str]
    flags: ClassVar[tuple[str, ...]] = ()
    created: ClassVar[str] = "There it is."
    """What is on the screen as soon as :meth:`creates` is done."""
    exit_keys: ClassVar[tuple[str, ...]] = ("C-c", "C-c")
    """They leave the CLI if its composer is empty."""

    def __init__(self, folder: Path, llm: FakeLLM, agent_id: str = "developer-1") -> None:
        self.folder = folder
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
        path = os.pathsep.join((str(AGENTS / "bin"), os.environ["PATH"]))
        bare = {"HOME": str(self.folder), "PATH": path, "LANG": "C.UTF-8", "TZ": "UTC", "SHELL": "/bin/bash"}
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

    def file(self, name: str, content: str | dict[str, Any]) -> Path:
        """Write a file below the home."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def processes(self) -> Iterator[psutil.Process]:
        """Whatever runs with this home, wherever it was started."""
        mark = f"HOME={self.folder}"
        for process in psutil.process_iter():
            try:
                if mark in (f"{name}={value}" for name, value in process.environ().items()):
                    yield process
            except psutil.Error:
                continue

    def clear(self) -> None:
        """End whatever runs there, and forget the folder."""
        for process in self.processes():
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Claude(Home):
    """Claude Code."""

    cli = "claude"

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


class NewToClaude(Claude):
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


class Codex(Home):
    """Codex, in the pane's own processes."""

    cli = "codex"
    flags = ("--disable", "daemon_auto_start")
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
        return "\n› " in pane.screen()

    def shell(self, command: str) -> Call:
        escalated = {"sandbox_permissions": "require_escalated", "justification": "The test wants it"}
        return Call("exec_command", {"cmd": command, **escalated})

    def asks(self, pane: AgentPane) -> bool:
        return "Press enter to confirm or esc to cancel" in pane.screen()


class Gemini(Home):
    """The Gemini CLI."""

    cli = "gemini"

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


class OpenCode(Home):
    """OpenCode."""

    cli = "opencode"
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


class Aider(Home):
    """aider."""

    cli = "aider"
    created = "Commit "
    flags = (
        "--model",
        "openai/fake-model",
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


HOMES: dict[str, type[Home]] = {home.cli: home for home in (Claude, Codex, Gemini, OpenCode, Aider)}
