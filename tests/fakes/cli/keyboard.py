"""What keys do in the composer, and what goes wrong with them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from fakes.cli.cells import wrap
from fakes.cli.composer import Composer, Draft, Meaning
from fakes.cli.conversation import Conversation
from fakes.cli.dialogs import BUILT_IN
from fakes.cli.keys import Input, Key, Paste, Typed
from fakes.cli.scenario import Faults, Ways
from fakes.cli.stage import Leave, Stage
from fakes.cli.timers import Timer

_DRAWN_SECONDS = 0.01


class Keyboard:
    """Takes input in its order; ``to_dialog`` takes it while a dialog is open."""

    def __init__(self, stage: Stage, conversation: Conversation, to_dialog: Callable[[Input], None]) -> None:
        self._stage = stage
        self._conversation = conversation
        self._to_dialog = to_dialog
        # what came in and is not taken yet, because an Enter is acted on late
        self._waiting: deque[Input] = deque()
        self._late: Timer | None = None
        # of the prompt that is being written
        self._pastes = self._enters = self._lost = 0
        self._pasted_at = float("-inf")
        # what was submitted by one of the keys that were read at once, and is drawn as long as the others are taken
        self._drawn: Draft | None = None
        self._exits = 0
        self._armed: Timer | None = None

    @property
    def _composer(self) -> Composer:
        return self._stage.scene.composer

    @property
    def _ways(self) -> Ways:
        return self._stage.scenario.ways

    @property
    def _faults(self) -> Faults:
        faults = self._stage.scenario.faults
        return faults if not faults.prompts or self._conversation.prompts < faults.prompts else Faults()

    def take(self, inputs: Sequence[Input]) -> None:
        """What was typed; after a late Enter it waits its turn."""
        self._drawn = None
        self._waiting.extend(inputs)
        while self._waiting and not self._late:
            given = self._waiting.popleft()
            if self._is_late(given):
                self._late = self._stage.timers.after(self._faults.accept_after, partial(self._take_late, given))
            else:
                self._take(given)

    def _is_late(self, given: Input) -> bool:
        enter = given == Key("Enter") and not self._stage.scene.dialog and not self._composer.empty
        return enter and self._faults.accept_after > 0

    def _take_late(self, given: Input) -> None:
        self._late = None
        self._take(given)
        self.take([])

    def _take(self, given: Input) -> None:
        if self._stage.scene.dialog:
            if isinstance(given, Typed) and len(given.text) > 1:  # its first character may close the dialog
                self._waiting.extendleft(Typed(char) for char in reversed(given.text))
            else:
                self._to_dialog(given)
            return
        if given not in (Key("C-c"), Key("C-d")):
            self._disarm()
        if isinstance(given, Typed):
            self._composer.type(given.text)
        elif isinstance(given, Paste):
            self._paste(given.text)
        elif press := self._KEYS.get(given.name):
            press(self)

    # ── pastes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _paste(self, text: str) -> None:
        faults = self._faults
        self._pasted_at = time.monotonic()
        self._pastes += 1
        if self._pastes <= faults.drop_pastes:
            self._stage.record.add("dropped", characters=len(text))
            return
        if self._pastes <= faults.drop_pastes + faults.cut_pastes:
            self._stage.record.add("cut", characters=len(text), left=faults.cut_at)
            text = text[: faults.cut_at]
        self._composer.paste(text, self._ways)
        if faults.busy_after_paste:
            self._stage.timers.after(_DRAWN_SECONDS, partial(time.sleep, faults.busy_after_paste))
        if self._pastes == 1 and faults.dialog_after_paste:
            self._stage.open_dialog(BUILT_IN[faults.dialog_after_paste])

    # ── Enter ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self) -> None:
        if self._composer.empty:
            self._enter_nothing()
            return
        if why := self._swallows_enter():
            self._stage.record.add("swallowed", key="Enter", why=why)
            if self._faults.swallowed_breaks:
                self._composer.type("\n")
            return
        match self._composer.enter(self._ways):
            case Meaning.RUN_LOCALLY:
                self._run_locally(self._composer.take().text)
            case Meaning.COMMAND:
                self._command(self._composer.draft.text)
            case Meaning.PROMPT:
                self._submit()

    def _enter_nothing(self) -> None:
        if self._drawn and self._faults.busy_after_paste:
            self._conversation.submit(self._drawn, "enter")
            return
        ghost = self._stage.scenario.looks.ghost
        if self._ways.enter_takes_ghost and ghost and not self._conversation.busy:
            self._conversation.submit(Draft(ghost), "ghost")

    def _swallows_enter(self) -> str:
        faults = self._faults
        passed = time.monotonic() - self._pasted_at
        if passed < faults.deaf_after_paste:
            return f"{passed:.3f} s after a paste"
        self._enters += 1
        return f"{self._enters} of {faults.swallow_enters}" if self._enters <= faults.swallow_enters else ""

    def _submit(self) -> None:
        if self._conversation.busy and self._ways.busy_enter == "ignore":
            return
        faults = self._faults
        self._drawn = draft = self._composer.take()
        self._enters = self._pastes = 0
        if self._lost < faults.lose_prompts:
            self._lost += 1
            self._stage.record.add("lost_prompt", text=draft.text)
            return
        self._lost = 0
        self._conversation.submit(draft, "enter", twice=faults.double_accept)

    def _run_locally(self, text: str) -> None:
        self._stage.record.add("ran_locally", text=text)
        shown = wrap(text[1:].strip(), self._stage.terminal.columns - 2)[0]
        self._stage.terminal.print([f"! {shown}", "  ⎿  (it ran)", ""])

    def _command(self, text: str) -> None:
        self._stage.record.add("command", text=text)
        if not self._ways.slash_stays:
            self._composer.take()
        name = text.split()[0]
        if name in ("/exit", "/quit"):
            raise Leave(0, "prompt_input_exit")
        self._stage.terminal.print([f"> {name}", f"  ⎿  Unknown slash command: {name[1:]}", ""])

    # ── other keys ───────────────────────────────────────────────────────────────────────────────────────────────

    def _line_feed(self) -> None:
        if self._ways.lf_submits:
            self._enter()
        else:
            self._composer.type("\n")

    def _ctrl_c(self) -> None:
        if self._conversation.busy:
            self._conversation.interrupt()
        elif self._composer.empty:
            self._leave_or_arm()
        else:
            self._composer.take()

    def _escape(self) -> None:
        if self._composer.empty or self._ways.escape_beside_draft:
            self._conversation.interrupt()

    def _leave_or_arm(self) -> None:
        if not self._composer.empty:
            return
        self._exits += 1
        if self._exits >= self._ways.ctrl_c_exits:
            raise Leave(0, "prompt_input_exit")
        self._stage.scene.notice = "Press Ctrl-C again to exit"
        self._armed = self._stage.timers.after(self._ways.ctrl_c_seconds, self._disarm)

    def _disarm(self) -> None:
        if self._armed:
            self._armed.cancel()
        self._exits, self._stage.scene.notice = 0, ""

    def _take_ghost(self) -> None:
        if self._composer.empty:
            self._composer.type(self._stage.scenario.looks.ghost)

    def _next_mode(self) -> None:
        scene = self._stage.scene
        scene.mode = (scene.mode + 1) % max(len(self._stage.scenario.looks.modes), 1)

    _KEYS: ClassVar[dict[str, Callable[[Keyboard], None]]] = {
        "Enter": _enter,
        "C-j": _line_feed,
        "M-Enter": lambda self: self._composer.type("\n"),
        "Backspace": lambda self: self._composer.backspace(),
        "C-u": lambda self: self._composer.kill_line(),
        "C-w": lambda self: self._composer.kill_word(),
        "C-l": lambda self: self._stage.draw(anew=True),
        "C-c": _ctrl_c,
        "C-d": _leave_or_arm,
        "Escape": _escape,
        "Tab": _take_ghost,
        "BTab": _next_mode,
    }
