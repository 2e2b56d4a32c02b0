"""The fake agent: one loop over its keys, its timers and its children."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from fakes.cli.cells import visible, wrap
from fakes.cli.children import Child
from fakes.cli.composer import Meaning, Pasted, sent
from fakes.cli.dialogs import FIRST_RUN, Choice, Dialog, OpenDialog
from fakes.cli.hooks import Hooks
from fakes.cli.keys import Input, Key, KeyReader, Paste, Typed
from fakes.cli.record import Record
from fakes.cli.scenario import Events, Faults, Login, Scenario, ScenarioFile, Step
from fakes.cli.scene import Scene
from fakes.cli.terminal import Terminal
from fakes.cli.timers import Timer, Timers
from fakes.cli.turn import Ended, LeaveForShell, Pause, Turn, Wait

_ESCAPE_SECONDS = 0.03
_ARMED_SECONDS = 2.0
_LAST_HOOKS_SECONDS = 1.5
_CHUNK = 65536

Items = list[str | Pasted]


class Leave(Exception):
    """The program ends with this exit code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Agent:
    """One run of the program."""

    def __init__(self, scenario: ScenarioFile, record: Record, hooks: Hooks) -> None:
        self.record = record
        self.terminal = Terminal()
        self.scene = Scene()
        self._file = scenario
        self._hooks = hooks
        self._timers = Timers()
        self._reader = KeyReader()
        self._settling: Timer | None = None
        self._children: dict[Child, str] = {}
        self._ready = False
        self._logged_in = True
        self._first_run: deque[Dialog] = deque()
        # what came in and is not taken yet, and why
        self._inbox: deque[Input] = deque()
        self._holding: Timer | None = None
        # of the prompt that is being written
        self._swallowed = self._dropped = self._cut = 0
        self._pasted_at = float("-inf")
        self._exits = 0
        # of the turns
        self._prompts = 0
        self._played: Counter[str] = Counter()
        self._queue: deque[tuple[Items, str]] = deque()
        self._turn: Turn | None = None
        self._taken: Items = []
        self._wake: Timer | None = None
        self._awaited: Sequence[Child] | None = None

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    def main(self) -> NoReturn:
        """Run until the end, whatever it is."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
        try:
            self._open()
            self._loop()
        except Leave as leaving:
            self._say_goodbye(str(leaving))
            self.record.add("exit", code=leaving.code, how=str(leaving))
            self.terminal.close()
            sys.exit(leaving.code)
        except LeaveForShell:
            self.record.add("exit", code=None, how="shell")
            self.terminal.close()
            os.execvp("bash", ["bash", "--noprofile", "--norc", "-i"])
        except BaseException:
            self.terminal.close()
            raise

    def _open(self) -> None:
        scenario = self._file.refresh()
        self.terminal.open(alternate=scenario.looks.alternate_screen)
        self._wakeups = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wakeups[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        self.record.add("started", pid=os.getpid(), argv=sys.argv[1:], cwd=os.getcwd())  # noqa: PTH109
        self._timers.after(scenario.start.ready_after, self._show)

    def _loop(self) -> NoReturn:
        while True:
            self._timers.run_due()
            self.draw()
            waited = [0, self._wakeups[0], *self._children]
            readable, _, _ = select.select(waited, [], [], self._timers.timeout())
            for source in readable:
                if source == 0:
                    self._read()
                elif isinstance(source, Child):
                    self._collect(source)
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
        if not self._ready and not self.scene.dialog:
            self.record.add("lost", data=data.decode("latin-1"))
            return
        if self._settling:
            self._settling.cancel()
        self._accept(self._reader.feed(data))
        if self._reader.unsure:
            self._settling = self._timers.after(_ESCAPE_SECONDS, lambda: self._accept(self._reader.settle()))

    def _resize(self) -> None:
        os.read(self._wakeups[0], _CHUNK)
        self.terminal.measure()
        self.draw(anew=True)

    def draw(self, *, anew: bool = False) -> None:
        """Show how things are, if there is anything to show."""
        if not self._ready and not self.scene.dialog:
            return
        looks = self.scenario.looks
        lines, cursor = self.scene.block(self.terminal.columns, self.terminal.rows, looks)
        if looks.titles:
            self.terminal.title(self.scene.title)
        (self.terminal.redraw if anew else self.terminal.draw)(lines, cursor)

    @property
    def scenario(self) -> Scenario:
        """As it was last read."""
        return self._file.now

    @property
    def events(self) -> Events:
        """How hooks are run."""
        return self.scenario.events

    # ── start and end ────────────────────────────────────────────────────────────────────────────────────────────

    def _show(self) -> None:
        start = self.scenario.start
        if start.bracketed_paste:
            self.terminal.frame_pastes()
        self.scene.topic = self.scenario.looks.name
        self._first_run.extend(FIRST_RUN[name] for name in start.dialogs)
        self._next_first_run()

    def _next_first_run(self) -> None:
        if self._first_run:
            self._open_dialog(self._first_run[0])
            return
        self._ready = True
        here = visible(os.getcwd())  # noqa: PTH109
        self.terminal.print([f" ✻ Welcome to {self.scenario.looks.name}!", f"   cwd: {here}", ""])
        self.record.add("ready")
        self.tell("SessionStart", source="startup", model="fake-model")

    def _answer_first_run(self, dialog: Dialog, choice: Choice) -> None:
        if choice.number in dialog.leaving:
            raise Leave(1, f"left at the {dialog.name} dialog")
        if dialog.name == "api_key":
            self._logged_in = choice.number == 1
        if not dialog.stays:
            self._first_run.popleft()
        self._next_first_run()

    def _say_goodbye(self, reason: str) -> None:
        running = self.tell("SessionEnd", reason=reason)
        end = time.monotonic() + _LAST_HOOKS_SECONDS
        while running and (left := end - time.monotonic()) > 0:
            for child in select.select(running, [], [], left)[0]:
                running.remove(child)
                self._collect(child)

    # ── children ─────────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, event: str, **facts: Any) -> list[Child]:
        """Run the event's hooks, unless they are off; returns those to wait for."""
        events = self.scenario.events
        if event in events.off:
            return []
        if event in events.late:
            self._timers.after(events.late[event], lambda: self._start_hooks(event, facts))
            return []
        return self._start_hooks(event, facts)

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
            child.forget()
        if self._awaited is not None and all(child.code is not None for child in self._awaited):
            self._go_on()

    # ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, items: Items, how: str) -> None:
        scenario = self._file.refresh()
        text = _sent(items, scenario)
        self.record.add("submitted", text=text, how=how)
        if not self._prompts:
            self.scene.topic = " ".join(text.split()[:4])[:40]
        self._prompts += 1
        self._print_prompt(items)
        self._taken = items
        steps = self._steps_for(text) if self._logged_in else (Login(),)
        self._turn = Turn(self, text, steps)
        self.scene.busy = True
        self._tick()
        self._go_on()

    def _steps_for(self, text: str) -> Sequence[Step]:
        for turn in self.scenario.turns:
            if turn.match in text and not 0 < turn.times <= self._played[turn.match]:
                self._played[turn.match] += 1
                return turn.steps
        return self.scenario.default.steps

    def _go_on(self, value: Any = None) -> None:
        """Let the turn go on until it waits again."""
        self._stop_waiting()
        assert self._turn
        try:
            wait = self._turn.script.send(value)
        except StopIteration:
            self._end_turn()
        else:
            self._wait(wait)

    def _wait(self, wait: Wait) -> None:
        match wait:
            case Pause(seconds):
                self._wake = self._timers.after(seconds, self._go_on)
            case Ended(children, seconds):
                self._awaited = children
                self._wake = self._timers.after(seconds, self._go_on)
            case Dialog():
                self._open_dialog(wait)

    def _stop_waiting(self) -> None:
        if self._wake:
            self._wake.cancel()
        self._wake = self._awaited = None

    def _interrupt(self) -> None:
        assert self._turn
        turn = self._turn
        self._stop_waiting()
        turn.script.close()
        self.record.add("interrupted", text=turn.prompt)
        self.terminal.print(["  ⎿  Interrupted · What should I do instead?", ""])
        if self.scenario.ways.escape_restores and not turn.spoke:
            self.scene.composer.fill(self._taken)
        self._end_turn()

    def _end_turn(self) -> None:
        self._turn = None
        self.scene.busy, self.scene.spinner, self.scene.dialog = False, "", None
        self._timers.after(self.events.idle_notice, lambda prompts=self._prompts: self._notice_idle(prompts))
        if self._queue:
            items, how = self._queue.popleft()
            self._show_queue()
            self._begin(items, how)

    def _notice_idle(self, prompts: int) -> None:
        if not self._turn and prompts == self._prompts:
            self.tell("Notification", notification_type="idle_prompt", message="Waiting for your input")

    def _tick(self) -> None:
        """Nothing but time has passed: the spinner turns."""
        if self._turn:
            self._timers.after(self.scenario.looks.spinner_seconds, self._tick)

    def _print_prompt(self, items: Items) -> None:
        first, *rest = wrap(_shown(items), self.terminal.columns - 2)
        self.terminal.print([f"> {first}", *(f"  {line}" for line in rest), ""])

    def _show_queue(self) -> None:
        self.scene.queued = [_shown(items) for items, _ in self._queue]

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _accept(self, inputs: Sequence[Input]) -> None:
        self._inbox.extend(inputs)
        while self._inbox and not self._holding:
            given = self._inbox.popleft()
            if self._is_held(given):
                self._holding = self._timers.after(self._faults.accept_after, lambda given=given: self._release(given))
            else:
                self._take(given)

    def _is_held(self, given: Input) -> bool:
        enters = given == Key("Enter") and not self.scene.dialog and not self.scene.composer.empty
        return enters and self._faults.accept_after > 0

    def _release(self, given: Input) -> None:
        self._holding = None
        self._take(given)
        self._accept([])

    def _take(self, given: Input) -> None:
        if self.scene.dialog:
            for part in map(Typed, given.text) if isinstance(given, Typed) else (given,):
                self._answer(part)
        elif isinstance(given, Typed):
            self._disarm()
            self.scene.composer.type(given.text)
        elif isinstance(given, Paste):
            self._disarm()
            self._paste(given.text)
        else:
            self._press(given.name)

    def _press(self, key: str) -> None:
        if key not in ("C-c", "C-d"):
            self._disarm()
        if call := self._KEYS.get(key):
            call(self)

    def _paste(self, text: str) -> None:
        faults = self._faults
        self._pasted_at = time.monotonic()
        if self._dropped < faults.drop_pastes:
            self._dropped += 1
            self.record.add("dropped", characters=len(text))
            return
        if self._cut < faults.cut_pastes:
            self._cut += 1
            self.record.add("cut", characters=len(text), left=faults.cut_at)
            text = text[: faults.cut_at]
        self.scene.composer.paste(text, self.scenario.ways)

    @property
    def _faults(self) -> Faults:
        faults = self.scenario.faults
        return faults if not faults.prompts or self._prompts < faults.prompts else Faults()

    def _enter(self) -> None:
        composer, ways = self.scene.composer, self.scenario.ways
        if composer.empty:
            if ways.enter_takes_ghost and self.scenario.looks.ghost and not self._turn:
                self._submit(list(self.scenario.looks.ghost), "ghost")
            return
        if why := self._swallows_enter():
            self.record.add("swallowed", key="Enter", why=why)
            return
        match composer.enter(ways):
            case Meaning.RUN_LOCALLY:
                self._run_locally(composer.take())
            case Meaning.COMMAND:
                self._command(composer.text)
            case Meaning.PROMPT:
                self._submit_text()

    def _swallows_enter(self) -> str:
        if self._swallowed < self._faults.swallow_enters:
            self._swallowed += 1
            return f"{self._swallowed} of {self._faults.swallow_enters}"
        passed = time.monotonic() - self._pasted_at
        return f"{passed:.3f} s after a paste" if passed < self._faults.deaf_after_paste else ""

    def _submit_text(self) -> None:
        twice = self._faults.double_accept
        self._swallowed = self._dropped = self._cut = 0
        if self._turn and self.scenario.ways.busy_enter == "ignore":
            return
        items = self.scene.composer.take()
        self._submit(items, "enter")
        if twice:
            self._queue.appendleft((items, "doubled"))

    def _submit(self, items: Items, how: str) -> None:
        if not self._turn:
            self._begin(items, how)
        elif self.scenario.ways.busy_enter == "steer":
            self.record.add("submitted", text=_sent(items, self.scenario), how="steered")
            self._print_prompt(items)
            self.tell("UserPromptSubmit", prompt=_sent(items, self.scenario))
        else:
            self.record.add("queued", text=_sent(items, self.scenario))
            self._queue.append((items, "queued"))
            self._show_queue()

    def _run_locally(self, items: Items) -> None:
        text = "".join(item.text if isinstance(item, Pasted) else item for item in items)
        self.record.add("ran_locally", text=text)
        self.terminal.print([f"! {wrap(text[1:].strip(), self.terminal.columns - 2)[0]}", "  ⎿  (it ran)", ""])

    def _command(self, text: str) -> None:
        self.record.add("command", text=text)
        if not self.scenario.ways.slash_stays:
            self.scene.composer.take()
        name = text.split()[0]
        if name in ("/exit", "/quit"):
            raise Leave(0, "prompt_input_exit")
        self.terminal.print([f"> {name}", f"  ⎿  Unknown slash command: {name[1:]}", ""])

    def _newline(self) -> None:
        if self.scenario.ways.lf_submits:
            self._enter()
        else:
            self.scene.composer.type("\n")

    def _escape(self) -> None:
        if self._turn:
            self._interrupt()

    def _ctrl_c(self) -> None:
        if self._turn:
            self._interrupt()
        elif not self.scene.composer.empty:
            self.scene.composer.take()
        else:
            self._leave_or_arm()

    def _leave_or_arm(self) -> None:
        if not self.scene.composer.empty:
            return
        self._exits += 1
        if self._exits >= self.scenario.ways.ctrl_c_exits:
            raise Leave(0, "prompt_input_exit")
        self.scene.notice = "Press Ctrl-C again to exit"
        self._timers.after(_ARMED_SECONDS, self._disarm)

    def _disarm(self) -> None:
        self._exits, self.scene.notice = 0, ""

    def _take_ghost(self) -> None:
        if self.scene.composer.empty:
            self.scene.composer.type(self.scenario.looks.ghost)

    _KEYS: dict[str, Callable[[Agent], None]] = {  # noqa: RUF012
        "Enter": _enter,
        "C-j": _newline,
        "M-Enter": lambda self: self.scene.composer.type("\n"),
        "Backspace": lambda self: self.scene.composer.backspace(),
        "C-u": lambda self: self.scene.composer.kill_line(),
        "C-w": lambda self: self.scene.composer.kill_word(),
        "C-l": lambda self: self.draw(anew=True),
        "C-c": _ctrl_c,
        "C-d": _leave_or_arm,
        "Escape": _escape,
        "Tab": _take_ghost,
    }

    # ── dialogs ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _open_dialog(self, dialog: Dialog) -> None:
        self.scene.dialog = opened = OpenDialog(dialog)
        self.record.add("dialog", name=dialog.name)
        if self._turn:
            self._timers.after(self.events.permission_notice, lambda: self._notice_dialog(opened))

    def _notice_dialog(self, opened: OpenDialog) -> None:
        if self.scene.dialog is opened:
            message = "Your agent needs your permission"
            self.tell("Notification", notification_type="permission_prompt", message=message)

    def _answer(self, given: Input) -> None:
        opened = self.scene.dialog
        if opened is None:  # the keys before it have closed it
            self._take(given)
            return
        key = given.name if isinstance(given, Key) else given.text
        pasted = isinstance(given, Paste)
        self.record.add("key_in_modal", dialog=opened.dialog.name, key=key, pasted=pasted)
        if given == Key("C-c"):
            self._cancel(opened.dialog)
            return
        choice = opened.take(given)
        if choice:
            self._choose(opened.dialog, choice)

    def _cancel(self, dialog: Dialog) -> None:
        if not self._turn:
            raise Leave(1, f"left at the {dialog.name} dialog")
        self._choose(dialog, Choice(0, ""))

    def _choose(self, dialog: Dialog, choice: Choice) -> None:
        self.record.add("chosen", dialog=dialog.name, number=choice.number, text=choice.text)
        if self._turn and dialog.stays and choice.number:
            return
        self.scene.dialog = None
        if self._turn:
            self._go_on(choice)
        else:
            self._answer_first_run(dialog, choice)


def _sent(items: Items, scenario: Scenario) -> str:
    whole = "".join(item.text if isinstance(item, Pasted) else item for item in items)
    return sent(whole, scenario.ways)


def _shown(items: Items) -> str:
    return "".join(item.mark if isinstance(item, Pasted) else item for item in items)


def _leave(number: int, _: FrameType | None) -> None:
    raise Leave(128 + number, signal.Signals(number).name)
