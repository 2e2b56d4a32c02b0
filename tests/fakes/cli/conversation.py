"""The prompts: the one that is being worked on and those that wait; and what the turn waits for."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from fakes.cli.cells import wrap
from fakes.cli.children import Child
from fakes.cli.composer import Draft
from fakes.cli.dialogs import BUILT_IN, Choice, Dialog
from fakes.cli.stage import Ended, Stage, Wait
from fakes.cli.steps import Login, Step
from fakes.cli.timers import Timer
from fakes.cli.turn import Turn


class Conversation:
    """One turn at a time."""

    def __init__(self, stage: Stage) -> None:
        self.logged_in = True
        #: How many prompts the model received.
        self.prompts = 0
        self._stage = stage
        self._played: Counter[str] = Counter()
        self._queue: deque[tuple[Draft, str]] = deque()
        self._turn: Turn | None = None
        self._draft = Draft(())
        self._wake: Timer | None = None
        self._tick: Timer | None = None
        self._awaited: Sequence[Child] | None = None

    @property
    def busy(self) -> bool:
        return self._turn is not None

    def submit(self, draft: Draft, how: str, *, twice: bool = False) -> None:
        """Take a prompt, for now or later."""
        text = draft.sent(self._stage.scenario.ways)
        doubled = [(draft, "doubled")] if twice else []
        if not self._turn:
            self._queue.extend(doubled)
            self._begin(draft, how)
        elif self._stage.scenario.ways.busy_enter == "steer":
            self._stage.record.add("submitted", text=text, how="steered")
            self._print(draft)
            self._stage.emit("UserPromptSubmit", prompt=text)
        else:
            self._stage.record.add("queued", text=text)
            self._queue.extend([(draft, "queued"), *doubled])
        self._show_queue()

    def answer(self, choice: Choice) -> None:
        """Continue the turn with what was chosen in its dialog."""
        self._go_on(choice)

    def child_ended(self) -> None:
        """Continue the turn if it has waited for the child that has ended."""
        if self._awaited is not None and all(child.code is not None for child in self._awaited):
            self._go_on()

    def interrupt(self) -> None:
        """End the turn here, without a hook."""
        if not self._turn:
            return
        turn = self._turn
        self._stop_waiting()
        turn.script.close()
        self._stage.record.add("interrupted", text=turn.prompt)
        self._stage.log("interrupted", "")
        self._stage.terminal.print(["  ⎿  Interrupted · What should I do instead?", ""])
        if self._stage.scenario.ways.escape_restores and not turn.spoke:
            self._stage.scene.composer.restore(self._draft)
        self._end()

    def _begin(self, draft: Draft, how: str) -> None:
        text = draft.sent(self._stage.scenario.ways)
        self._stage.record.add("submitted", text=text, how=how)
        self._stage.log("user", text)
        scene = self._stage.scene
        if not self.prompts:
            scene.topic = " ".join(text.split()[:4])[:40]
        self.prompts += 1
        self._print(draft)
        self._draft = draft
        self._turn = Turn(self._stage, text, self._steps_for(text) if self.logged_in else (Login(),))
        scene.busy, scene.since = True, time.monotonic()
        self._spin()
        self._go_on()

    def _steps_for(self, text: str) -> Sequence[Step]:
        for turn in self._stage.scenario.turns:
            if turn.match in text and not 0 < turn.times <= self._played[turn.match]:
                self._played[turn.match] += 1
                return turn.steps
        return self._stage.scenario.default.steps

    def _go_on(self, value: Any = None) -> None:
        """Let the turn go on until it waits again."""
        self._stop_waiting()
        assert self._turn
        try:
            wait = self._turn.script.send(value)
        except StopIteration:
            self._end()
        else:
            self._wait(wait)

    def _wait(self, wait: Wait) -> None:
        if isinstance(wait, Dialog):
            self._stage.open_dialog(wait)
            self._stage.timers.after(self._stage.scenario.events.permission_notice, lambda: self._notice(wait))
            return
        if isinstance(wait, Ended):
            self._awaited = wait.children
        self._wake = self._stage.timers.after(wait.seconds, self._go_on)

    def _stop_waiting(self) -> None:
        if self._wake:
            self._wake.cancel()
        self._wake = self._awaited = None

    def _end(self) -> None:
        self._turn = None
        if self._tick:
            self._tick.cancel()
        scene = self._stage.scene
        scene.busy, scene.spinner, scene.dialog = False, "", None
        if dialog := self._stage.scenario.faults.dialog_after_turn:
            self._stage.open_dialog(BUILT_IN[dialog])
        prompts = self.prompts
        self._stage.timers.after(self._stage.scenario.events.idle_notice, lambda: self._notice_idle(prompts))
        if self._queue:
            draft, how = self._queue.popleft()
            self._show_queue()
            self._begin(draft, how)

    def _spin(self) -> None:
        """Have the spinner show that time passes."""
        self._tick = self._stage.timers.after(self._stage.scenario.looks.spinner_seconds, self._spin)

    def _notice(self, dialog: Dialog) -> None:
        opened = self._stage.scene.dialog
        if opened and opened.dialog is dialog:
            message = "Your agent needs your permission"
            self._stage.emit("Notification", notification_type="permission_prompt", message=message)

    def _notice_idle(self, prompts: int) -> None:
        if not self._turn and prompts == self.prompts:
            self._stage.emit("Notification", notification_type="idle_prompt", message="Waiting for your input")

    def _print(self, draft: Draft) -> None:
        if not self._stage.scenario.looks.echoes_prompts:
            return
        first, *rest = wrap(draft.shown, self._stage.terminal.columns - 2)
        self._stage.terminal.print([f"> {first}", *(f"  {line}" for line in rest), ""])

    def _show_queue(self) -> None:
        self._stage.scene.queued = [draft.shown for draft, _ in self._queue]
