"""The fake agent: one loop over its keys, its timers and its children."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from fakes.cli.cells import visible
from fakes.cli.children import Child
from fakes.cli.claude_files import ClaudeFiles
from fakes.cli.conversation import Conversation
from fakes.cli.dialogs import BUILT_IN, Choice, Dialog, OpenDialog
from fakes.cli.hooks import Hooks
from fakes.cli.keyboard import Keyboard
from fakes.cli.keys import Input, Key, KeyReader, Paste
from fakes.cli.record import Record
from fakes.cli.scenario import Scenario, ScenarioFile
from fakes.cli.scene import Scene
from fakes.cli.stage import Leave, LeaveForShell, StartAnew
from fakes.cli.terminal import Picture, Terminal
from fakes.cli.timers import Timer, Timers

_ESCAPE_SECONDS = 0.03
_LAST_HOOKS_SECONDS = 1.5
_CHUNK = 65536


class Agent:
    """One run of the program."""

    def __init__(self, scenario: ScenarioFile, record: Record, hooks: Hooks, session: str) -> None:
        self.record = record
        self.terminal = Terminal()
        self.scene = Scene()
        self.timers = Timers()
        self._file = scenario
        self._hooks = hooks
        self._session = session
        self._conversation = Conversation(self)
        self._keyboard = Keyboard(self, self._conversation, self._to_dialog)
        self._reader = KeyReader()
        self._unsure: Timer | None = None
        self._children: dict[Child, str] = {}
        self._first_run: deque[Dialog] = deque()
        self._ready = False
        self._picture: Picture | None = None

    @property
    def scenario(self) -> Scenario:
        return self._file.now

    # ── from start to end ────────────────────────────────────────────────────────────────────────────────────────

    def main(self) -> NoReturn:
        """Run until it ends, in whatever way."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
        try:
            self._open()
            self._loop()
        except Leave as leaving:
            self._close(leaving)
            sys.exit(leaving.code)
        except LeaveForShell:
            self.record.add("exit", code=None, how="shell")
            self.terminal.close()
            os.execvp("bash", ["bash", "--noprofile", "--norc", "-i"])
        except StartAnew:
            self.record.add("exit", code=None, how="update")
            self.terminal.close()
            os.execv(sys.orig_argv[0], sys.orig_argv)
        except BaseException:
            self.terminal.close()
            raise

    def _open(self) -> None:
        scenario = self._file.refresh()
        self._files = ClaudeFiles(wanted=scenario.events.claude_files, session=self._session)
        self.terminal.open(alternate=scenario.looks.alternate_screen)
        if not scenario.looks.framed:
            self.terminal.write("\x1b[2J\x1b[H")
        self._wakeups = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wakeups[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        self.record.add("started", pid=os.getpid(), argv=sys.argv[1:], cwd=os.getcwd())  # noqa: PTH109
        self.timers.after(scenario.start.ready_after, self._show)

    def _show(self) -> None:
        scenario = self._file.refresh()
        if scenario.start.bracketed_paste:
            self.terminal.frame_pastes()
        self.scene.topic = scenario.looks.name
        self._first_run.extend(BUILT_IN[name] for name in scenario.start.dialogs)
        self._next_first_run()

    def _next_first_run(self) -> None:
        if self._first_run:
            self.open_dialog(self._first_run[0])
            return
        self._ready = True
        welcome = [f" ✻ Welcome to {self.scenario.looks.name}!", f"   cwd: {visible(os.getcwd())}", ""]  # noqa: PTH109
        self.terminal.print([*welcome, *([] if self._conversation.logged_in else ["Not logged in · Run /login", ""])])
        self.record.add("ready")
        self.emit("SessionStart", source="startup", model="fake-model")
        self._tick()

    def _tick(self) -> None:
        """Change the title, and have what idles be drawn anew, as often as the scenario says."""
        looks = self.scenario.looks
        if looks.titles_per_second:
            self.scene.topic = f"title {time.monotonic()}"
        if looks.titles_per_second or looks.idle_spinner:
            self.timers.after(1 / max(looks.titles_per_second, 10), self._tick)

    def _close(self, leaving: Leave) -> None:
        running = list(self.emit("SessionEnd", reason=str(leaving)))
        end = time.monotonic() + _LAST_HOOKS_SECONDS
        while running and (left := end - time.monotonic()) > 0:
            for child in select.select(running, [], [], left)[0]:
                running.remove(child)
                self.record.add("hook", event="SessionEnd", code=child.collect())
        for child in self._children:
            child.kill()
        self._files.gone()
        self.record.add("exit", code=leaving.code, how=str(leaving))
        self.terminal.close()

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _loop(self) -> NoReturn:
        while True:
            self.timers.run_due()
            self._show_state()
            self.draw()
            waited: list[int | Child] = [0, self._wakeups[0], *self._children]
            for source in select.select(waited, [], [], self.timers.timeout())[0]:
                if isinstance(source, Child):
                    self._collect(source)
                elif source == 0:
                    self._read()
                else:
                    self._resize()

    def _read(self) -> None:
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            data = b""
        if not data:
            raise Leave(129, "hangup")
        self.record.read(data)
        self._file.refresh()
        if not self._is_shown:
            self.record.add("lost", data=data.decode("latin-1"))
            return
        if self._unsure:
            self._unsure.cancel()
        self._keyboard.take(self._reader.feed(data))
        if self._reader.unsure:
            self._unsure = self.timers.after(_ESCAPE_SECONDS, self._settle)

    def _settle(self) -> None:
        self._keyboard.take(self._reader.settle())

    def _resize(self) -> None:
        os.read(self._wakeups[0], _CHUNK)
        self.terminal.measure()
        self.draw(anew=True)

    @property
    def _is_shown(self) -> bool:
        return self._ready or self.scene.dialog is not None

    def draw(self, *, anew: bool = False) -> None:
        """Draw the screen, once there is anything to show."""
        if not self._is_shown:
            return
        picture = self.scene.picture(self.terminal.columns, self.terminal.rows, self.scenario.looks)
        late = self.scenario.faults.draw_after
        if not late:
            self.terminal.show(picture, anew=anew)
        elif picture != self._picture:
            self.timers.after(late, lambda: self.terminal.show(picture, anew=anew))
        self._picture = picture

    # ── events and programs ──────────────────────────────────────────────────────────────────────────────────────

    def emit(self, event: str, **facts: Any) -> Sequence[Child]:
        """Start the event's hooks, unless they are off; returns those to wait for."""
        self.record.add("event", name=event)
        events = self.scenario.events
        if event in events.off:
            return []
        common = {"session_id": self._session, "transcript_path": self._files.transcript, "cwd": os.getcwd()}  # noqa: PTH109
        if event in events.late:
            self.timers.after(events.late[event], lambda: self._start_hooks(event, {**common, **facts}))
            return []
        return self._start_hooks(event, {**common, **facts})

    def _start_hooks(self, event: str, facts: dict[str, Any]) -> list[Child]:
        times = 2 if event in self.scenario.events.twice else 1
        started = [child for _ in range(times) for child in self._hooks.start(event, facts)]
        self._children.update(dict.fromkeys(started, event))
        return started

    def run(self, command: str, given: str) -> Child:
        """Run a shell command."""
        child = Child(command, given)
        self._children[child] = ""
        return child

    def _collect(self, child: Child) -> None:
        code = child.collect()
        if event := self._children.pop(child):
            self.record.add("hook", event=event, code=code)
        self._conversation.child_ended()

    def log(self, kind: str, text: str) -> None:
        """Add a row to the transcript: ``user``, ``assistant``, ``error`` or ``interrupted``."""
        self._files.log(kind, text)

    def _show_state(self) -> None:
        if not self._ready:
            return
        if self.scene.dialog:
            self._files.state("waiting", "permission prompt" if self._conversation.busy else "dialog open")
        else:
            self._files.state("busy" if self._conversation.busy else "idle")

    # ── dialogs ──────────────────────────────────────────────────────────────────────────────────────────────────

    def open_dialog(self, dialog: Dialog) -> None:
        """Have a dialog cover the composer."""
        self.scene.dialog = OpenDialog(dialog)
        self.record.add("dialog", name=dialog.name)
        if dialog.alternate:
            self.terminal.turn_over(alternate=True)
        if dialog.whole_screen:
            self.draw(anew=True)

    def _to_dialog(self, given: Input) -> None:
        opened = self.scene.dialog
        assert opened
        key = given.name if isinstance(given, Key) else given.text
        self.record.add("key_in_modal", dialog=opened.dialog.name, key=key, pasted=isinstance(given, Paste))
        if time.monotonic() - opened.since < self.scenario.faults.deaf_dialogs:
            return
        if given == Key("C-c") and not self._ready:
            raise Leave(1, f"left at the {opened.dialog.name} dialog")
        choice = Choice(0, "") if given == Key("C-c") else opened.take(given)
        if choice:
            self.record.add("chosen", dialog=opened.dialog.name, number=choice.number, text=choice.text)
            self._choose(opened.dialog, choice)

    def _choose(self, dialog: Dialog, choice: Choice) -> None:
        if dialog.stays and (choice.number or not self._ready):
            return
        self.scene.dialog = None
        if dialog.alternate:
            self.terminal.turn_over(alternate=False)
        if dialog.whole_screen:
            self.draw(anew=True)
        if self._conversation.busy and dialog.of_turn:
            self._conversation.answer(choice)
        elif not self._ready:
            self._choose_first_run(dialog, choice)

    def _choose_first_run(self, dialog: Dialog, choice: Choice) -> None:
        if choice.number in dialog.leaving:
            raise Leave(1, f"left at the {dialog.name} dialog")
        if dialog.name == "api_key":
            self._conversation.logged_in = choice.number == 1
        self._first_run.popleft()
        self._next_first_run()


def _leave(number: int, _: FrameType | None) -> None:
    raise Leave(128 + number, signal.Signals(number).name)
