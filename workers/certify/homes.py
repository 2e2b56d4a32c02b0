"""The homes for Torch's own kinds: one class per program, and one for a newcomer at it.

Each is as bare as can be: nothing of the user's own, a dummy key that tells the agent's name, the fake model as the
only service, no telemetry, no updates. A newcomer's program meets its first dialogs; the others answered them before.
"""

from __future__ import annotations

import json
import re
import time
from functools import cached_property
from pathlib import Path

from torch_tasks.workers.certify.fake_model.steps import Call, Step, Text
from torch_tasks.workers.certify.home import Home
from torch_tasks.workers.certify.internet import Internet
from torch_tasks.workers.tmux.pane import AgentPane


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

    @property
    def plan(self) -> Path:
        """The file that the CLI has just named to the model for its plan."""
        request = json.dumps(self.llm.requests(self.key)[-1].body)
        [file] = set(re.findall(rf"{self.folder}/[^\s\"]*/plans/[\w-]+\.md", request))
        return Path(file)

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
    compact_command = "/compress"

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
    compact_command = "/compact"
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


class OverAcp(Home):
    """A program that Torch drives over the Agent Client Protocol; Torch itself draws the pane, and reads its keys."""

    way = "acp"
    leaves_composer_alone = True
    shows_silent_work = False
    exit_keys = ("C-d",)
    compact_command = ""


class OpenCodeOverAcp(OverAcp, OpenCodeHome):
    """``opencode acp``."""


class GeminiOverAcp(OverAcp, GeminiHome):
    """``gemini --acp``. It empties a session that it loads in the minute in which that began."""

    def is_resumable(self) -> bool:
        minute = time.strftime("%Y-%m-%dT%H-%M", time.gmtime())
        return not any((self.folder / ".gemini").rglob(f"session-{minute}-*"))


OVER_ACP: dict[str, type[Home]] = {home.cli: home for home in (OpenCodeOverAcp, GeminiOverAcp)}
"""By the program behind a kind that is laid over ``acp``."""
