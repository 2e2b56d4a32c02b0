"""One turn: from a submitted prompt through the scenario's steps to its end."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from fakes.cli import steps
from fakes.cli.cells import wrap
from fakes.cli.dialogs import BUILT_IN, Choice, Dialog
from fakes.cli.stage import Ended, LeaveForShell, Pause, Script, Stage, StartAnew, Wait
from fakes.cli.steps import Step

_VERBS = ("Crunched", "Baked", "Brewed", "Cooked")
_STREAMED = 0.05
_RULES = "rules.local"
"""The file in its folder that lets it do everything."""
_ASK_MODEL = shlex.join([sys.executable, os.path.abspath(f"{__file__}/../ask_model.py")])  # noqa: PTH100
_ERRORS = {429: "rate_limit", 503: "overloaded"}


class TurnFailed(Exception):
    """The turn ends without an answer."""

    def __init__(self, text: str, error: str) -> None:
        super().__init__(text)
        self.error = error


class TurnDenied(Exception):
    """The user did not let the agent do it: no more steps. A silent denial starts no hook."""

    def __init__(self, *, silent: bool) -> None:
        super().__init__()
        self.silent = silent


class Turn:
    """Plays the steps. ``script`` yields what it waits for."""

    def __init__(self, stage: Stage, prompt: str, turn_steps: Sequence[Step]) -> None:
        self.prompt = prompt
        self.spoke = False
        self._stage = stage
        self._steps = turn_steps
        self._answer: list[str] = []
        self._choice = ""
        self.script = self._play()

    @property
    def answer(self) -> str:
        """All that was said."""
        return "\n".join(self._answer)

    def _play(self) -> Script:
        self._spin()
        yield from self._emit("UserPromptSubmit", prompt=self.prompt)
        how = "finished"
        try:
            yield from self._each(self._steps)
        except TurnDenied as denial:
            how = "denied"
            if not denial.silent:
                yield from self._finish()
        except TurnFailed as failure:
            how = "failed"
            yield from self._fail(failure)
        else:
            yield from self._finish()
        self._stage.record.add("turn_over", how=how, answer=self.answer)

    def _each(self, some: Sequence[Step]) -> Script:
        for step in some:
            yield from self._PLAYERS[type(step)](self, step)

    def _finish(self) -> Script:
        self._stage.scene.spinner = ""
        self._stage.log("assistant", self.answer)
        yield from self._emit("Stop", last_assistant_message=self.answer, stop_hook_active=False)
        verb = _VERBS[len(self.prompt) % len(_VERBS)]
        self._print(f"✻ {verb} for {int(time.monotonic() - self._stage.scene.since)}s", "")

    def _fail(self, failure: TurnFailed) -> Script:
        self._stage.scene.spinner = ""
        self._print(*_hang(f"  ⎿  {failure}", self._columns), "")
        self._stage.log("error", str(failure))
        yield from self._emit("StopFailure", error=failure.error, last_assistant_message=str(failure))

    # ── the steps ────────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self, step: steps.Work) -> Script:
        self._spin()
        yield Pause(step.seconds)

    def _say(self, step: steps.Say) -> Script:
        text = step.text.replace("{words}", " ".join(self.prompt.split()[:5])).replace("{choice}", self._choice)
        text = text.replace("{prompt}", self.prompt)
        scene = self._stage.scene
        scene.spinner = ""
        self.spoke = True
        pieces = max(1, min(len(text), int(step.seconds / _STREAMED)))
        printed = 0
        try:
            for piece in range(1, pieces + 1):
                lines = _hang(f"● {text[: len(text) * piece // pieces]}", self._columns)
                self._print(*lines[printed:-1])
                printed = len(lines) - 1
                scene.growing = lines[-1]
                if step.seconds:
                    self._stage.draw()
                    yield Pause(step.seconds / pieces)
        finally:
            self._print(scene.growing, "")
            scene.growing = ""
        self._answer.append(text)

    def _run(self, step: steps.Run) -> Script:
        self._spin()
        tool = {"tool_name": "Bash", "tool_input": {"command": step.command}}
        yield from self._emit("PreToolUse", **tool)
        child = self._stage.run(step.command, self.prompt)
        try:
            yield Ended([child])
        finally:
            child.kill()
        output = child.output
        self._stage.record.add("ran", command=step.command, code=child.code, output=output)
        said = output.rstrip("\n") or ("(No content)" if child.code == 0 else f"Error: Exit code {child.code}")
        self._print(*_hang(f"● Bash({step.command})", self._columns), *_hang(f"  ⎿  {said}", self._columns), "")
        yield from self._emit("PostToolUse", **tool, tool_response={"stdout": output})

    def _ask_model(self, step: steps.AskModel) -> Script:
        messages: list[dict[str, Any]] = [{"role": "user", "content": self.prompt}]
        while True:
            child = self._stage.run(_ASK_MODEL, json.dumps(messages))
            try:
                yield Ended([child])
            finally:
                child.kill()
            said = json.loads(child.output)
            if "error" in said:
                raise TurnFailed(f"API Error: {said['error']}", _ERRORS.get(said["status"], "unknown"))
            messages.append(said)
            if said["content"]:
                yield from self._say(steps.Say(said["content"]))
            for call in said.get("tool_calls", ()):
                command = json.loads(call["function"]["arguments"])["command"]
                yield from self._permission(steps.Permission(command=command))
                yield from self._run(steps.Run(command))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": "it ran"})
            if not said.get("tool_calls"):
                return

    def _permission(self, step: steps.Permission) -> Script:
        if self._may_do_anything():
            return
        facts = {"tool_name": step.tool, "tool_input": {"command": step.command}, "permission_suggestions": []}
        body = ("", step.command, "", step.question)
        dialog = Dialog(
            "permission",
            f"{step.tool} command",
            body,
            step.choices,
            step.default,
            numbered=step.numbered,
            style=step.style,
            window=step.window,
            hint="Esc to cancel",
            of_turn=True,
        )
        choice = yield from self._ask(dialog, facts)
        if choice.number == 0 or choice.text.startswith("No"):
            self._print(*_hang(f"● {step.tool}({step.command})", self._columns), "  ⎿  User rejected it", "")
            yield from self._each(step.denied)
            raise TurnDenied(silent=step.silent)
        self._heed(choice.text)

    def _may_do_anything(self) -> bool:
        scene, modes = self._stage.scene, self._stage.scenario.looks.modes
        return scene.asks_nothing or os.path.exists(_RULES) or "auto" in (*modes, "")[scene.mode]  # noqa: PTH110

    def _heed(self, chosen: str) -> None:
        """Change for later what the choice says."""
        scene, modes = self._stage.scene, self._stage.scenario.looks.modes
        if "project" in chosen:
            with open(_RULES, "w", encoding="utf-8") as rules:  # noqa: PTH123
                rules.write("always\n")
        elif "always" in chosen:
            scene.asks_nothing = True
        elif "auto" in chosen:
            scene.mode = next(at for at, mode in enumerate(modes) if "auto" in mode)

    def _question(self, step: steps.Ask) -> Script:
        choices = (*step.choices, "Type something.") if step.free else step.choices
        asked = {"question": step.question, "options": [{"label": label} for label in step.choices]}
        facts = {"tool_name": "AskUserQuestion", "tool_input": {"questions": [asked]}, "permission_suggestions": []}
        dialog = Dialog("question", step.question, (), choices, free=step.free, of_turn=True)
        choice = yield from self._ask(dialog, facts)
        if choice.number == 0:
            self._print("● User declined to answer questions", "")
            raise TurnDenied(silent=True)
        self._choice = choice.text
        self._print("● User answered:", *_hang(f"  ⎿  {step.question} → {choice.text}", self._columns), "")

    def _ask(self, dialog: Dialog, facts: dict[str, Any]) -> Generator[Wait, Any, Choice]:
        self._stage.scene.spinner = ""
        self._stage.emit("PermissionRequest", **facts)
        choice: Choice = yield dialog
        self._spin()
        return choice

    def _compact(self, step: steps.Compact) -> Script:
        yield from self._emit("PreCompact", trigger="auto", custom_instructions="")
        self._spin("Compacting conversation…")
        yield Pause(step.seconds)
        self._print("✻ Conversation compacted (ctrl+o for history)", "")
        yield from self._emit("PostCompact", trigger="auto", compact_summary="They talked.")
        self._spin()

    def _retry(self, step: steps.Retry) -> Script:
        for attempt in range(1, step.attempts + 1):
            wait = max(1, round(step.seconds))
            self._spin(f"{step.status} {step.text} · Retrying in {wait}s · attempt {attempt}/{step.of}")
            yield Pause(step.seconds)
        if step.fails:
            raise TurnFailed(f"API Error: {step.status} {step.text}", "rate_limit" if step.status == 429 else "unknown")
        self._spin()

    def _limit(self, step: steps.Limit) -> Script:
        text = step.text.replace("{resets}", step.resets)
        if step.modal:
            choices = ("Stop and wait for limit to reset", "Upgrade your plan")
            self._stage.scene.spinner = ""
            yield Dialog("limit", "What do you want to do?", (text,), choices, of_turn=True)
        raise TurnFailed(text, "rate_limit")

    def _login(self, step: steps.Login) -> Script:
        if step.screen:
            self._stage.scene.spinner = ""
            yield replace(BUILT_IN["login"], of_turn=True)
        raise TurnFailed("Not logged in · Please run /login", "authentication_failed")

    def _error(self, step: steps.Fail) -> Script:
        raise TurnFailed(step.text, step.error)
        yield  # a generator all the same

    def _loop(self, step: steps.Loop) -> Script:
        times = 0
        while not step.times or times < step.times:
            self._print(*_hang(f"● {step.text}", self._columns), "")
            self.spoke = True
            self._stage.draw()
            yield Pause(step.every)
            times += 1

    def _storm(self, step: steps.Storm) -> Script:
        end = time.monotonic() + step.seconds
        while time.monotonic() < end:
            self._stage.draw(anew=True)
            yield Pause(1 / step.per_second)

    def _hang_up(self, step: steps.Hang) -> Script:
        self._stage.draw()
        time.sleep(step.seconds)
        yield Pause(0)

    def _crash(self, step: steps.Crash) -> Script:
        self._stage.draw()
        self._stage.terminal.write("".join(f"\x1b[999B\r\n{line}" for line in step.text.splitlines()))
        self._stage.record.add("exit", code=step.code, how="crash")
        if step.code < 0:
            with contextlib.suppress(OSError):  # of SIGKILL, whose default cannot be changed
                signal.signal(-step.code, signal.SIG_DFL)
            os.kill(os.getpid(), -step.code)
        os._exit(step.code)
        yield  # a generator all the same

    def _shell(self, step: steps.Shell) -> Script:
        raise LeaveForShell
        yield  # a generator all the same

    def _open(self, step: steps.Open) -> Script:
        self._stage.scene.spinner = ""
        choice: Choice = yield replace(BUILT_IN[step.dialog], of_turn=True)
        self._choice = choice.text
        self._spin()

    def _update(self, step: steps.Update) -> Script:
        raise StartAnew
        yield  # a generator all the same

    _PLAYERS: ClassVar[dict[type[Step], Callable[[Turn, Any], Script]]] = {
        steps.AskModel: _ask_model,
        steps.Work: _work,
        steps.Say: _say,
        steps.Run: _run,
        steps.Permission: _permission,
        steps.Ask: _question,
        steps.Compact: _compact,
        steps.Retry: _retry,
        steps.Limit: _limit,
        steps.Login: _login,
        steps.Fail: _error,
        steps.Loop: _loop,
        steps.Storm: _storm,
        steps.Hang: _hang_up,
        steps.Crash: _crash,
        steps.Shell: _shell,
        steps.Open: _open,
        steps.Update: _update,
    }

    # ── small parts ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _columns(self) -> int:
        return self._stage.terminal.columns

    def _print(self, *lines: str) -> None:
        self._stage.terminal.print(lines)

    def _spin(self, words: str = "Working… ({seconds}s · esc to interrupt)") -> None:
        self._stage.scene.spinner = words

    def _emit(self, event: str, **facts: Any) -> Script:
        if children := self._stage.emit(event, **facts):
            yield Ended(children, self._stage.scenario.events.patience)


def _hang(text: str, columns: int) -> list[str]:
    """The text in lines; all but the first are indented as far as the words of the first."""
    indent = len(text) - len(text.lstrip(" ●⎿>"))
    lines = wrap(text[indent:], columns - indent)
    return [text[:indent] + lines[0], *(" " * indent + line for line in lines[1:])]
